/* Takes the steps that come on standard input and prints, for every STEP_INSTALL and at the end, a hash of all that the
 * steps since the last one left in the flow's entry and returned. Words are big-endian on the wire, whatever the machine is.
 *
 * A step is a word (operation in the high byte, number of arguments below) and its arguments.
 */
#include <stdio.h>
#include "step.h"

static fx_u32 hashes[2] = {0x811c9dc5u, 0x01000193u};

static void hash(fx_u32 word)
{
    hashes[0] = (hashes[0] ^ word) * 0x01000193u;
    hashes[1] = ((hashes[1] << 5) | (hashes[1] >> 27)) ^ word;
    hashes[1] *= 0x9e3779b1u;
}

static int read_word(fx_u32 *word)
{
    unsigned char bytes[4];
    if (fread(bytes, 1, 4, stdin) != 4) {
        return 0;
    }
    *word = ((fx_u32)bytes[0] << 24) | ((fx_u32)bytes[1] << 16) | ((fx_u32)bytes[2] << 8) | bytes[3];
    return 1;
}

int main(void)
{
    static fx_u32 f[FX_FLOW_ENTRY_WORDS];
    static char buffer[1 << 16];
    fx_u32 args[STEP_ARGUMENTS];
    fx_u32 out[STEP_RESULTS];
    fx_u32 head;
    fx_u32 i;
    fx_u32 steps = 0u;
    setvbuf(stdin, buffer, _IOFBF, sizeof buffer);
    while (read_word(&head)) {
        fx_u32 given = head & 0xffffffu;
        if (given > STEP_ARGUMENTS) {
            fprintf(stderr, "a step with %lu arguments\n", (unsigned long)given);
            return 2;
        }
        for (i = 0u; i < STEP_ARGUMENTS; i++) {
            args[i] = 0u;
            if (i < given && !read_word(&args[i])) {
                fprintf(stderr, "the last step is cut off\n");
                return 2;
            }
        }
        if (head >> 24 == STEP_INSTALL && steps != 0u) {
            printf("%08lx%08lx\n", (unsigned long)hashes[0], (unsigned long)hashes[1]);
        }
        fx_step(f, head >> 24, args, out);
        for (i = 0u; i <= FX_FE_DELTA_FLAGS; i++) {
            hash(f[i]);
        }
        for (i = 0u; i < STEP_RESULTS; i++) {
            hash(out[i]);
        }
        steps++;
    }
    printf("%08lx%08lx %lu\n", (unsigned long)hashes[0], (unsigned long)hashes[1], (unsigned long)steps);
    return 0;
}
