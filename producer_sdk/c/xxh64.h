/* XXH64, written from its specification. */

#ifndef HOTKEY_XXH64_H
#define HOTKEY_XXH64_H

#include <stddef.h>
#include <stdint.h>

#define PRIME_1 0x9E3779B185EBCA87ULL
#define PRIME_2 0xC2B2AE3D27D4EB4FULL
#define PRIME_3 0x165667B19E3779F9ULL
#define PRIME_4 0x85EBCA77C2B2AE63ULL
#define PRIME_5 0x27D4EB2F165667C5ULL

static inline uint64_t
rotated(uint64_t number, int bits)
{
    return number << bits | number >> (64 - bits);
}

static inline uint64_t
read_32(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

static inline uint64_t
read_64(const unsigned char *at)
{
    return read_32(at) | read_32(at + 4) << 32;
}

static inline uint64_t
round_of(uint64_t sum, uint64_t lane)
{
    return rotated(sum + lane * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t
merged(uint64_t sum, uint64_t lane)
{
    return (sum ^ round_of(0, lane)) * PRIME_1 + PRIME_4;
}

static uint64_t
stripes(const unsigned char **at, const unsigned char *end, uint64_t seed)
{
    uint64_t one = seed + PRIME_1 + PRIME_2, two = seed + PRIME_2, three = seed, four = seed - PRIME_1;
    for (; end - *at >= 32; *at += 32) {
        one = round_of(one, read_64(*at));
        two = round_of(two, read_64(*at + 8));
        three = round_of(three, read_64(*at + 16));
        four = round_of(four, read_64(*at + 24));
    }
    uint64_t sum = rotated(one, 1) + rotated(two, 7) + rotated(three, 12) + rotated(four, 18);
    return merged(merged(merged(merged(sum, one), two), three), four);
}

static uint64_t
xxh64(const unsigned char *at, size_t size, uint64_t seed)
{
    const unsigned char *end = at + size;
    uint64_t sum = size >= 32 ? stripes(&at, end, seed) : seed + PRIME_5;
    sum += size;
    for (; end - at >= 8; at += 8) {
        sum = rotated(sum ^ round_of(0, read_64(at)), 27) * PRIME_1 + PRIME_4;
    }
    if (end - at >= 4) {
        sum = rotated(sum ^ read_32(at) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        at += 4;
    }
    for (; at < end; at++) {
        sum = rotated(sum ^ *at * PRIME_5, 11) * PRIME_1;
    }
    sum = (sum ^ sum >> 33) * PRIME_2;
    sum = (sum ^ sum >> 29) * PRIME_3;
    return sum ^ sum >> 32;
}

#endif
