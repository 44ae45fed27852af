/* Prints the numbers of knockd_rs.h, for comparison with those of src/capi/abi.rs. */
#include <knockd_rs.h>
#include <stdio.h>

#define NUMBER(name) printf(#name " %lu\n", (unsigned long)(name))
#define FIELD(name) printf("offset " #name " %lu\n", (unsigned long)offsetof(struct knockd_rs_options, name))

int main(void)
{
    struct knockd_rs_options options = KNOCKD_RS_OPTIONS_INIT;

    printf("initial size %lu\n", (unsigned long)options.size);
    FIELD(size);
    FIELD(methods);
    FIELD(timeout_ms);
    FIELD(knocks);
    FIELD(patience_ms);
    FIELD(uses);
    FIELD(duration_s);
    NUMBER(KNOCKD_RS_DONE);
    NUMBER(KNOCKD_RS_INVALID);
    NUMBER(KNOCKD_RS_SERVER);
    NUMBER(KNOCKD_RS_NOT_SENT);
    NUMBER(KNOCKD_RS_CLOSED);
    NUMBER(KNOCKD_RS_BUG);
    NUMBER(KNOCKD_RS_METHOD_SPA);
    NUMBER(KNOCKD_RS_METHOD_SYN);
    NUMBER(KNOCKD_RS_METHOD_SEQUENCE);
    NUMBER(KNOCKD_RS_METHOD_TOTP);
    NUMBER(KNOCKD_RS_USES_PROFILE);
    return 0;
}
