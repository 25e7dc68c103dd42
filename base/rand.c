/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers: xoshiro256** seeded through splitmix64. */
#include "base/rand.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/obj.h"

uint64_t kb_rand_entropy(void)
{
    uint64_t v = 0;
    ssize_t n = getrandom(&v, sizeof(v), 0);

    KB_ASSERT(n == (ssize_t)sizeof(v));
    return v;
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void kb_rand_init(struct kb_rand *rand, uint64_t seed)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(rand->s); i++) {
        rand->s[i] = splitmix64(&seed);
    }
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t kb_rand_u64(struct kb_rand *rand)
{
    uint64_t *s = rand->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* The two hexadecimal digits of every byte, "000102…ff". */
static const char *hex_pairs(void)
{
    static const char digits[] =
#define H1(a) \
    a "0" a "1" a "2" a "3" a "4" a "5" a "6" a "7" a "8" a "9" a "a" a "b" a "c" a "d" a "e" a "f"
        H1("0") H1("1") H1("2") H1("3") H1("4") H1("5") H1("6") H1("7") H1("8") H1("9") H1("a")
            H1("b") H1("c") H1("d") H1("e") H1("f");
#undef H1
    return digits;
}

void kb_rand_uuid4(struct kb_rand *rand, char out[36])
{
    const char *pairs = hex_pairs();
    unsigned char b[16];
    uint64_t hi = kb_rand_u64(rand);
    uint64_t lo = kb_rand_u64(rand);
    size_t at = 0;

    __builtin_memcpy(b, &hi, 8);
    __builtin_memcpy(b + 8, &lo, 8);
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            out[at++] = '-';
        }
        __builtin_memcpy(out + at, pairs + 2 * (size_t)b[i], 2);
        at += 2;
    }
}
