/* Calls the library as a careless program would. Says nothing when it answers each time as it should. */
#include <knockd_rs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char error[256];

static void expect(int line, int got, int wanted, const char *part)
{
    if (got == wanted && strstr(error, part))
        return;
    printf("line %d: %d, %s\n", line, got, error);
    exit(1);
}

#define REFUSED(call, part) expect(__LINE__, (call), KNOCKD_RS_INVALID, (part))
#define ROOM error, sizeof error

/* A later version of the options, for a library of today. */
struct later {
    knockd_rs_options options;
    uint32_t more[2];
};

static void options_of_all_lengths(const knockd_rs_server *server)
{
    knockd_rs_options options = KNOCKD_RS_OPTIONS_INIT;
    struct later later = { KNOCKD_RS_OPTIONS_INIT, { 0, 0 } };
    size_t *short_one = malloc(sizeof(size_t));

    options.size = 0;
    REFUSED(knockd_rs_knock(server, "nonsense", &options, ROOM), "KNOCKD_RS_OPTIONS_INIT");
    options.size = (size_t)-1;
    REFUSED(knockd_rs_knock(server, "nonsense", &options, ROOM), "KNOCKD_RS_OPTIONS_INIT");
    options.size = sizeof options;
    options.methods = 1 << 20;
    REFUSED(knockd_rs_knock(server, NULL, &options, ROOM), "0x100000");
    options.methods = KNOCKD_RS_METHOD_SYN;
    REFUSED(knockd_rs_knock(server, NULL, &options, ROOM), "takes knocks by spa");
    options.methods = 0;
    options.uses = 251;
    REFUSED(knockd_rs_knock(server, NULL, &options, ROOM), "251 connections");
    later.options.size = sizeof later;
    REFUSED(knockd_rs_knock(server, "nonsense", &later.options, ROOM), "nonsense");
    later.more[1] = 1;
    REFUSED(knockd_rs_knock(server, "nonsense", &later.options, ROOM), "have more in them");
    /* Nothing behind the size is read: the sanitiser would see it. */
    *short_one = sizeof *short_one;
    REFUSED(knockd_rs_knock(server, "nonsense", (knockd_rs_options *)(void *)short_one, ROOM), "nonsense");
    free(short_one);
}

static void reasons_of_all_lengths(void)
{
    char whole[64], part[64];
    size_t room, length;

    knockd_rs_open(NULL, NULL, "no name", NULL, NULL, 0);
    knockd_rs_open(NULL, NULL, "no name", NULL, NULL, 100);
    knockd_rs_open("/\xc3\xa4", "/\xc3\xa4", "a", NULL, whole, sizeof whole);
    for (room = 0; room < sizeof part; room++) {
        memset(part, '#', sizeof part);
        knockd_rs_open("/\xc3\xa4", "/\xc3\xa4", "a", NULL, part, room);
        length = room ? strlen(part) : 0;
        if (part[room] != '#' || length > room || strncmp(part, whole, length) || (length && (part[length - 1] & 0xc0) == 0xc0)) {
            printf("%lu bytes of room\n", (unsigned long)room);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    knockd_rs_server *server = NULL;
    int fd = 4711;

    if (argc != 2 || strlen(knockd_rs_version()) < 5)
        return 1;
    knockd_rs_free(NULL);
    REFUSED(knockd_rs_open(NULL, NULL, NULL, &server, ROOM), "`server` is NULL");
    REFUSED(knockd_rs_open(NULL, NULL, argv[1], NULL, ROOM), "`out` is NULL");
    REFUSED(knockd_rs_open(NULL, NULL, "\xff\xfe", &server, ROOM), "`server` is no UTF-8");
    REFUSED(knockd_rs_open(NULL, NULL, "../../etc/passwd", &server, ROOM), "/");
    REFUSED(knockd_rs_open_bundle(NULL, NULL, &server, ROOM), "`bundle` is NULL");
    expect(__LINE__, knockd_rs_open_bundle("/nonexistent", "{", &server, ROOM), KNOCKD_RS_SERVER, "the bundle:");
    REFUSED(knockd_rs_connect(NULL, 22, NULL, &fd, ROOM), "`server` is NULL");
    REFUSED(knockd_rs_connect_udp(NULL, 22, NULL, 0, NULL, &fd, ROOM), "`server` is NULL");
    REFUSED(knockd_rs_knock(NULL, NULL, NULL, ROOM), "`server` is NULL");
    REFUSED(knockd_rs_close_grants(NULL, NULL, NULL, ROOM), "`server` is NULL");
    if (server != NULL || fd != 4711)
        return 2;

    expect(__LINE__, knockd_rs_open(NULL, NULL, argv[1], &server, ROOM), KNOCKD_RS_DONE, "");
    if (error[0] != 0)
        return 3;
    REFUSED(knockd_rs_connect(server, 0, NULL, &fd, ROOM), "port 0");
    REFUSED(knockd_rs_connect_udp(server, 0, "x", 1, NULL, &fd, ROOM), "port 0");
    REFUSED(knockd_rs_connect(server, 22, NULL, NULL, ROOM), "`fd` is NULL");
    REFUSED(knockd_rs_connect_udp(server, 22, NULL, 0, NULL, NULL, ROOM), "`fd` is NULL");
    REFUSED(knockd_rs_knock(server, "\xff", NULL, ROOM), "`ports` is no UTF-8");
    REFUSED(knockd_rs_knock(server, "tcp/22 tcp/0", NULL, ROOM), "port 0");
    options_of_all_lengths(server);
    reasons_of_all_lengths();
    knockd_rs_free(server);
    return 0;
}
