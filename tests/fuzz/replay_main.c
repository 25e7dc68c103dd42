/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over files: replay FILE-OR-DIRECTORY... For compilers without libFuzzer, and
 * as a test. Fails when there was nothing to run. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned inputs;

static int file_run(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t len = 0;
    size_t cap = 0;

    if (file == NULL) {
        perror(path);
        return 1;
    }
    for (;;) {
        size_t got;

        if (len == cap) {
            cap = cap == 0 ? 4096 : cap * 2;
            data = realloc(data, cap);
            if (data == NULL) {
                abort();
            }
        }
        got = fread(data + len, 1, cap - len, file);
        if (got == 0) {
            break;
        }
        len += got;
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    inputs++;
    return 0;
}

static int path_run(const char *path)
{
    struct stat status;
    struct dirent *entry;
    DIR *directory;
    int rc = 0;

    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return file_run(path);
    }
    directory = opendir(path);
    if (directory == NULL) {
        perror(path);
        return 1;
    }
    while ((entry = readdir(directory)) != NULL) {
        char full[4096];

        if (entry->d_name[0] == '.') {
            continue;
        }
        if (snprintf(full, sizeof(full), "%s/%s", path, entry->d_name) >= (int)sizeof(full)) {
            fprintf(stderr, "%s: path too long\n", entry->d_name);
            rc = 1;
            continue;
        }
        rc |= file_run(full);
    }
    closedir(directory);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;

    for (int i = 1; i < argc; i++) {
        rc |= path_run(argv[i]);
    }
    printf("%u inputs\n", inputs);
    return rc != 0 || inputs == 0;
}
