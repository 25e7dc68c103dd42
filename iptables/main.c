/* SPDX-License-Identifier: Apache-2.0 */
/* kobune-iptables: makes the connections of a pod go through its sidecar. See
 * docs/kobune-iptables.md. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "iptables/apply.h"
#include "iptables/say.h"
#include "iptables/settings.h"
#include "iptables/validate.h"

/* The programs stand where a user who is not root has no PATH for. */
static void setup_path(void)
{
    static const char usual[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    const char *path = getenv("PATH");
    char *whole;

    if (!path || !*path) {
        setenv("PATH", usual, 1);
    } else if (asprintf(&whole, "%s:%s", path, usual) >= 0) {
        setenv("PATH", whole, 1);
        free(whole);
    }
}

static enum kb_exit enter_namespace(const struct kb_settings *s)
{
    if (!*s->network_namespace) {
        return KB_EXIT_OK;
    }
    int fd = open(s->network_namespace, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -1 : setns(fd, CLONE_NEWNET);
    if (result != 0) {
        kb_say(KB_SAY_ERROR, "%s \"%s\": %m", kb_flags_source(s, &s->network_namespace),
               s->network_namespace);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (result == 0 && s->cni_mode) {
        /* on a node the usual lock is everybody's; the namespace's own file does */
        setenv("XTABLES_LOCKFILE", s->network_namespace, 1);
    }
    return result == 0 ? KB_EXIT_OK : KB_EXIT_FAILED;
}

static enum kb_exit run(struct kb_settings *s)
{
    enum kb_exit result = enter_namespace(s);

    if (result == KB_EXIT_OK) {
        result = kb_settings_look(s);
    }
    if (result != KB_EXIT_OK) {
        return result;
    }
    if (!s->cleanup_only) {
        kb_settings_say(s);
    }
    if (s->dry_run) {
        kb_say(KB_SAY_INFO, "dry run: nothing is changed%s",
               s->run_validation ? ", and nothing validated" : "");
        kb_apply_print(s);
        return KB_EXIT_OK;
    }
    if (!s->skip_rule_apply) {
        result = kb_apply(s);
    }
    return result == KB_EXIT_OK && s->run_validation ? kb_validate(s) : result;
}

int main(int argc, char **argv)
{
    struct kb_settings settings;

    setup_path();
    switch (kb_flags_read(&settings, argc, argv)) {
    case KB_FLAGS_HELP:
        kb_flags_help();
        return KB_EXIT_OK;
    case KB_FLAGS_BAD:
        kb_settings_check(&settings); /* all mistakes at once */
        return KB_EXIT_USAGE;
    case KB_FLAGS_OK:
        break;
    }
    if (kb_settings_check(&settings) != 0) {
        return KB_EXIT_USAGE;
    }
    enum kb_exit result = run(&settings);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        kb_say(KB_SAY_ERROR, "writing to standard output: %m");
        return KB_EXIT_FAILED;
    }
    return result;
}
