/**
 * @file knockd_rs.h
 * @brief Connections to ports that knockd-rs guards, for programs in C.
 *
 * `make lib` builds target/release/libknockd_rs.so:
 *
 *     cc program.c -I src/capi -L target/release -lknockd_rs
 *
 * Every call blocks until it is done. Calls print nothing, start no thread and install no signal handler. They may be
 * made from several threads at a time, also with one and the same server; ::knockd_rs_free comes after all of them.
 * With NULL for a directory the environment is read (HOME, XDG_CONFIG_HOME, XDG_STATE_HOME): no other thread may change
 * it meanwhile.
 *
 * Every call that can fail returns 0 (::KNOCKD_RS_DONE) or another ::knockd_rs_result, and takes a buffer for the
 * reason, in English and UTF-8: `error` with room for `error_len` bytes. What does not fit is cut off; the text always
 * ends with a zero byte. After a success it is empty. NULL and 0 when nobody wants to know. What `out` and `fd` point
 * to is written after a success alone.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef KNOCKD_RS_H
#define KNOCKD_RS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a call came to. */
enum knockd_rs_result {
    /** It was done. */
    KNOCKD_RS_DONE = 0,
    /** An argument is NULL, no UTF-8, out of range, or names nothing that can be had. */
    KNOCKD_RS_INVALID = 1,
    /** There is no such server, or its file or bundle is broken or open to other users. */
    KNOCKD_RS_SERVER = 2,
    /** No knock could be sent: a name without an address, no network, a counter that cannot be stored. */
    KNOCKD_RS_NOT_SENT = 3,
    /** The port did not open in time. */
    KNOCKD_RS_CLOSED = 4,
    /** A mistake in this library. Please report it with the text in `error`. */
    KNOCKD_RS_BUG = 5
};

/** Ways to knock, for knockd_rs_options.methods. */
enum knockd_rs_method {
    /** One encrypted datagram. */
    KNOCKD_RS_METHOD_SPA = 1,
    /** One TCP SYN; needs CAP_NET_RAW. */
    KNOCKD_RS_METHOD_SYN = 2,
    /** An encoded sequence of ports. */
    KNOCKD_RS_METHOD_SEQUENCE = 4,
    /** Ports that follow from the time. */
    KNOCKD_RS_METHOD_TOTP = 8
};

/** For knockd_rs_options.uses: as many connections as the profile gives. */
#define KNOCKD_RS_USES_PROFILE UINT32_MAX

/** A server that this client knows. */
typedef struct knockd_rs_server knockd_rs_server;

/**
 * How hard to try, and what to ask for. A field that is 0 is left to the library. Begin with
 * #KNOCKD_RS_OPTIONS_INIT: later versions add fields at the end, and `size` tells which of them the caller knows.
 */
typedef struct knockd_rs_options {
    /** sizeof(struct knockd_rs_options). */
    size_t size;
    /** A sum of ::knockd_rs_method; 0 for all that the server takes from this client, the most discreet first. */
    uint32_t methods;
    /** When to give up, in milliseconds; 0 for 20 seconds. */
    uint32_t timeout_ms;
    /** How many knocks are sent at the most; 0 for six. */
    uint32_t knocks;
    /** How long one knock may take to have an effect, in milliseconds; 0 for 2 seconds. */
    uint32_t patience_ms;
    /** For how many connections, 1 to 250, or #KNOCKD_RS_USES_PROFILE; 0 for one. */
    uint32_t uses;
    /** How long the grant is to last, in seconds; 0 for what the profile says. */
    uint32_t duration_s;
} knockd_rs_options;

/** Options that leave everything to the library. */
#define KNOCKD_RS_OPTIONS_INIT { sizeof(struct knockd_rs_options), 0, 0, 0, 0, 0, 0 }

/** The version of the library, such as "0.1.0". Never NULL; not to be freed. */
const char *knockd_rs_version(void);

/**
 * Reads what is known of a server, as `knockd-rs import` left it.
 *
 * @param config_dir where SERVER.toml is; NULL for ~/.config/knockd-rs
 * @param state_dir where counters are kept; NULL for ~/.local/state/knockd-rs
 * @param server the server's name here
 * @param out the server, for ::knockd_rs_free
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_open(const char *config_dir, const char *state_dir, const char *server, knockd_rs_server **out,
                   char *error, size_t error_len);

/**
 * Takes a server from the text of a bundle (`knockd-rs profile add`) that holds the client's private key.
 *
 * @param state_dir where counters are kept, made where it is missing; a client that loses them is taken for somebody
 *   who repeats old knocks. NULL for ~/.local/state/knockd-rs
 * @param bundle the text
 * @param out the server, for ::knockd_rs_free
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_open_bundle(const char *state_dir, const char *bundle, knockd_rs_server **out, char *error,
                          size_t error_len);

/**
 * Connects to a TCP port of the server; knocks if it is not open.
 *
 * @param server the server
 * @param port the port
 * @param options NULL to leave everything to the library
 * @param fd a connected socket, blocking and closed on exec; the caller's
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_connect(const knockd_rs_server *server, uint16_t port, const knockd_rs_options *options, int *fd,
                      char *error, size_t error_len);

/**
 * Opens a UDP port of the server.
 *
 * With a probe, that is sent first without a knock, then again and again with knocks in between, until anything comes
 * back. It has to be a datagram that the service answers and that does no harm when it arrives more than once. Its
 * answer is the first thing to be received from the socket; answers to copies may follow. Without a probe a knock is
 * sent and nothing is looked for.
 *
 * @param server the server
 * @param port the port
 * @param probe a datagram that the service answers, or NULL
 * @param probe_len its length
 * @param options NULL to leave everything to the library
 * @param fd a connected socket, blocking and closed on exec; the caller's
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_connect_udp(const knockd_rs_server *server, uint16_t port, const void *probe, size_t probe_len,
                          const knockd_rs_options *options, int *fd, char *error, size_t error_len);

/**
 * Knocks, and does not look for an effect. Returns when all copies are out, after about a second.
 *
 * @param server the server
 * @param ports ports and ranges with blanks between them, such as "tcp/22 udp/60000-60010"; NULL for everything that the
 *   profile opens
 * @param options NULL to leave everything to the library; of it methods, uses and duration_s count
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_knock(const knockd_rs_server *server, const char *ports, const knockd_rs_options *options, char *error,
                    size_t error_len);

/**
 * Ends this client's grants, by a knock whose effect is not looked for.
 *
 * @param server the server
 * @param ports as for ::knockd_rs_knock
 * @param options as for ::knockd_rs_knock; of it methods count
 * @param error room for a reason, or NULL
 * @param error_len how many bytes there are
 * @return ::knockd_rs_result
 */
int knockd_rs_close_grants(const knockd_rs_server *server, const char *ports, const knockd_rs_options *options,
                           char *error, size_t error_len);

/**
 * Forgets a server. Sockets stay open.
 *
 * @param server the server, or NULL
 */
void knockd_rs_free(knockd_rs_server *server);

#ifdef __cplusplus
}
#endif

#endif
