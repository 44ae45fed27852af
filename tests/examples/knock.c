/* Connects to a guarded port and prints what its service says first.
 *
 *     knock SERVER tcp PORT            the connection is made, knocked for if it has to be
 *     knock SERVER udp PORT PROBE      PROBE is sent until the service answers it
 *     knock SERVER open [PORTS]        a knock alone, for any number of connections
 *     knock SERVER close [PORTS]       and the end of what it opened
 *
 * SERVER is what `knockd-rs import` called it, or the file of a bundle. Options may be added as NAME=NUMBER, for
 * `methods` and `timeout_ms`. Built by: cc knock.c -I src/capi -L target/release -lknockd_rs */

#include <knockd_rs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *error, int result)
{
    fprintf(stderr, "knock: %s\n", error);
    return result;
}

/* Prints the first of what comes. */
static int print_answer(int fd)
{
    char answer[512];
    ssize_t length = read(fd, answer, sizeof answer);

    close(fd);
    if (length < 0)
        return fail("nothing can be read", 1);
    fwrite(answer, 1, (size_t)length, stdout);
    return 0;
}

/* The text of a bundle, or NULL when there is no such file. */
static char *read_bundle(const char *name)
{
    FILE *file = fopen(name, "r");
    char *text = file ? calloc(1, 65536) : NULL;

    if (text && fread(text, 1, 65535, file) == 0)
        text[0] = 0;
    if (file)
        fclose(file);
    return text;
}

static int use(const knockd_rs_server *server, int argc, char **argv, const knockd_rs_options *options)
{
    char error[512];
    const char *what = argv[2], *more = argc > 3 ? argv[3] : NULL;
    unsigned short port = more ? (unsigned short)atoi(more) : 0;
    const char *probe = argc > 4 ? argv[4] : NULL;
    int fd = -1, result = KNOCKD_RS_INVALID;

    if (!strcmp(what, "tcp")) {
        result = knockd_rs_connect(server, port, options, &fd, error, sizeof error);
    } else if (!strcmp(what, "udp")) {
        result = knockd_rs_connect_udp(server, port, probe, probe ? strlen(probe) : 0, options, &fd, error,
                                       sizeof error);
    } else if (!strcmp(what, "open")) {
        result = knockd_rs_knock(server, more, options, error, sizeof error);
    } else if (!strcmp(what, "close")) {
        result = knockd_rs_close_grants(server, more, options, error, sizeof error);
    } else {
        return fail("use tcp, udp, open or close", 1);
    }
    if (result != KNOCKD_RS_DONE)
        return fail(error, result);
    return fd < 0 || (probe == NULL && !strcmp(what, "udp")) ? 0 : print_answer(fd);
}

int main(int argc, char **argv)
{
    knockd_rs_options options = KNOCKD_RS_OPTIONS_INIT;
    knockd_rs_server *server = NULL;
    char error[512], *bundle;
    int result;

    for (; argc > 3 && strchr(argv[argc - 1], '='); argc--) {
        const char *word = argv[argc - 1], *value = strchr(word, '=') + 1;
        uint32_t number = (uint32_t)strtoul(value, NULL, 10);

        if (!strncmp(word, "methods=", 8))
            options.methods = number;
        else if (!strncmp(word, "timeout_ms=", 11))
            options.timeout_ms = number;
        else
            return fail("use methods=NUMBER or timeout_ms=NUMBER", 1);
    }
    if (argc < 3)
        return fail("usage: knock SERVER tcp|udp|open|close [PORT] [PROBE]", 1);
    options.uses = !strcmp(argv[2], "open") ? KNOCKD_RS_USES_PROFILE : 0;

    bundle = strchr(argv[1], '/') ? read_bundle(argv[1]) : NULL;
    result = bundle ? knockd_rs_open_bundle(NULL, bundle, &server, error, sizeof error)
                    : knockd_rs_open(NULL, NULL, argv[1], &server, error, sizeof error);
    free(bundle);
    if (result != KNOCKD_RS_DONE)
        return fail(error, result);
    result = use(server, argc, argv, &options);
    knockd_rs_free(server);
    return result;
}
