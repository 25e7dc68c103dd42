/* SPDX-License-Identifier: Apache-2.0 */
/* Where the process starts. */
#include <stdio.h>

#include "proxy/server/options.h"
#include "proxy/server/server.h"

int main(int argc, char **argv)
{
    struct kb_options options;

    switch (kb_options_parse(&options, argc, argv, stdout, stderr)) {
    case KB_OPTIONS_DONE:
        return 0;
    case KB_OPTIONS_BAD:
        return 1;
    case KB_OPTIONS_RUN:
        break;
    }
    return kb_server_main(&options);
}
