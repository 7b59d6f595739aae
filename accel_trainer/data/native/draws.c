/* Random numbers as functions of keys: see accel_trainer/core/keyed_random.py, of which these are the bits. */

#include <stdint.h>

#include "kernel.h"

#define GOLDEN 0x9E3779B97F4A7C15u

INLINE uint64_t splitmix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* `count` words of 64 random bits for each view of each subject, or as many numbers in [0, 1), which are their upper 53
   bits: (subjects, views, count). keys: one for each view. */
void kernel_random(const uint64_t *keys, int64_t views, const int64_t *subjects, int64_t num_subjects, int64_t count,
                   int64_t is_uniform, void *out) {
    uint64_t *bits = out;
    double *numbers = out;
    for (int64_t i = 0; i < num_subjects; i++)
        for (int64_t view = 0; view < views; view++) {
            uint64_t key = keys[view], row = splitmix64(splitmix64((uint64_t)subjects[i] * GOLDEN + key) ^ key);
            for (int64_t j = 0; j < count; j++) {
                uint64_t word = splitmix64(row + (uint64_t)(j + 1) * GOLDEN);
                if (is_uniform)
                    *numbers++ = (double)(word >> 11) * 0x1p-53;
                else
                    *bits++ = word;
            }
        }
}
