/* SPDX-License-Identifier: Apache-2.0 */
/* One value against its checks. For pb_validate.c and the tables that are generated for it. */
#pragma once

#include "base/diag.h"
#include "proto/pb.h"

enum kb_pb_check_op {
    KB_PB_CHECK_END, /* after the last row of a field */
    KB_PB_CHECK_GT,
    KB_PB_CHECK_GTE,
    KB_PB_CHECK_LT,
    KB_PB_CHECK_LTE,
    KB_PB_CHECK_EQUAL,
    KB_PB_CHECK_IN,     /* one row for each number allowed */
    KB_PB_CHECK_NOT_IN, /* one row for each number refused */
    KB_PB_CHECK_MIN_LEN,
    KB_PB_CHECK_MAX_LEN,
    KB_PB_CHECK_MIN_BYTES,
    KB_PB_CHECK_MAX_BYTES,
    KB_PB_CHECK_MIN_ITEMS,
    KB_PB_CHECK_MAX_ITEMS,
    KB_PB_CHECK_MIN_PAIRS,
    KB_PB_CHECK_MAX_PAIRS,
    KB_PB_CHECK_PREFIX,
    KB_PB_CHECK_SUFFIX,
    KB_PB_CHECK_CONTAINS,
    KB_PB_CHECK_PATTERN,
    KB_PB_CHECK_WELL_KNOWN, /* number: 1 HTTP header name, 2 HTTP header value */
    KB_PB_CHECK_LENIENT,    /* WELL_KNOWN only refuses NUL, CR and LF */
    KB_PB_CHECK_TEXT_IN,    /* number texts follow one another, each with its NUL */
    KB_PB_CHECK_TEXT_NOT_IN,
    KB_PB_CHECK_REQUIRED,
    KB_PB_CHECK_SKIP, /* the message is not looked into */
    KB_PB_CHECK_DEFINED_ONLY,
    KB_PB_CHECK_UNIQUE,
    KB_PB_CHECK_IGNORE_EMPTY,
};

/* What of the field a row is about. */
enum kb_pb_at { KB_PB_AT_FIELD, KB_PB_AT_ITEM, KB_PB_AT_KEY, KB_PB_AT_VALUE };

struct kb_pb_check {
    uint8_t op;
    uint8_t at;
    uint16_t text; /* offset in check_text */
    union {
        int64_t number; /* durations in nanoseconds */
        double real;    /* float and double */
    };
};

/* A oneof that must be set. */
struct kb_pb_required {
    uint16_t field; /* index from 1 of one of its fields; 0 after the last row */
    uint16_t text;  /* its name in check_text */
};

/* Checks a scalar, or a google.protobuf.Duration that is there; `slot` is the member, or the
 * message itself. */
void kb_validate_value(struct kb_diag *diag, const ProtobufCFieldDescriptor *field,
                       const struct kb_pb_check *rows, enum kb_pb_at at, const void *slot,
                       const char *check_text);

/* Checks the number of elements of a list or map. */
void kb_validate_count(struct kb_diag *diag, const struct kb_pb_check *rows, size_t count);

/* Reports when an element comes twice. */
void kb_validate_unique(struct kb_diag *diag, const ProtobufCFieldDescriptor *field,
                        const char *items, size_t count);
