/* SPDX-License-Identifier: Apache-2.0 */
/* Shortest text of doubles. */
#include "proxy/stats/number_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct digits {
    char text[20]; /* without leading and trailing zeros; at least one */
    int count;
    int exponent; /* of the first digit */
    bool negative;
};

/* 15 digits always survive a round trip through text; 17 always suffice the other way. */
static struct digits digits_of(double value)
{
    struct digits digits = {.negative = value < 0};
    char text[KB_NUMBER_TEXT_MAX];
    char *end;

    for (int precision = 14; precision <= 16; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, fabs(value));
        if (strtod(text, &end) == fabs(value)) {
            break;
        }
    }
    for (const char *p = text; *p != 'e'; p++) {
        if (*p != '.') {
            digits.text[digits.count++] = *p;
        }
    }
    digits.exponent = (int)strtol(strchr(text, 'e') + 1, &end, 10);
    while (digits.count > 1 && digits.text[digits.count - 1] == '0') {
        digits.count--;
    }
    return digits;
}

static struct kb_str exponent_text(const struct digits *digits, char out[KB_NUMBER_TEXT_MAX])
{
    int len = snprintf(out, KB_NUMBER_TEXT_MAX, "%s%c%s%.*se%c%02d", digits->negative ? "-" : "",
                       digits->text[0], digits->count > 1 ? "." : "", digits->count - 1,
                       digits->text + 1, digits->exponent < 0 ? '-' : '+', abs(digits->exponent));

    return kb_str_make(out, (size_t)len);
}

/* exponent between -5 and 20 */
static struct kb_str fixed_text(const struct digits *digits, char out[KB_NUMBER_TEXT_MAX])
{
    size_t len = 0;

    if (digits->negative) {
        out[len++] = '-';
    }
    if (digits->exponent < 0) {
        out[len++] = '0';
        out[len++] = '.';
    }
    for (int i = -1; i > digits->exponent; i--) {
        out[len++] = '0';
    }
    for (int i = 0; i < digits->count || i <= digits->exponent; i++) {
        if (i > 0 && i == digits->exponent + 1) {
            out[len++] = '.';
        }
        out[len++] = i < digits->count ? digits->text[i] : '0';
    }
    return kb_str_make(out, len);
}

struct kb_str kb_number_text(double value, char out[KB_NUMBER_TEXT_MAX])
{
    struct digits digits;

    if (!isfinite(value)) {
        return isnan(value) ? KB_STR("nan") : value < 0 ? KB_STR("-inf") : KB_STR("inf");
    }
    digits = digits_of(value);
    if (digits.exponent < -4 || digits.exponent >= 16) {
        return exponent_text(&digits, out);
    }
    return fixed_text(&digits, out);
}

struct kb_str kb_number_json(double value, char out[KB_NUMBER_TEXT_MAX])
{
    char fixed[KB_NUMBER_TEXT_MAX];
    struct digits digits;
    struct kb_str exponent_form;
    struct kb_str fixed_form;

    if (!isfinite(value)) {
        return KB_STR("null");
    }
    digits = digits_of(value);
    exponent_form = exponent_text(&digits, out);
    if (digits.exponent < -5 || digits.exponent > 20) {
        return exponent_form;
    }
    fixed_form = fixed_text(&digits, fixed);
    if (fixed_form.len > exponent_form.len) {
        return exponent_form;
    }
    memcpy(out, fixed, fixed_form.len);
    return kb_str_make(out, fixed_form.len);
}
