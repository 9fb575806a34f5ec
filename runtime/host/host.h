/* host.h - what the files of the host program share. Private to atomo-lua; the library knows nothing of Lua. */
#ifndef ATOMO_HOST_H
#define ATOMO_HOST_H

#include "atomo_bindings.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>

enum { HOST_OK = 0, HOST_SCRIPT_ERROR = 1, HOST_USAGE = 2 };

/* paths.c: finds the Lua modules relative to the executable and puts them first in package.path; runs
 * atomo/host/init.lua, whose table is left on the stack. 0, or the error's text is on the stack. */
int host_load_modules(lua_State *L, const char *argv0);

/* repl.c */
void host_repl(lua_State *L);

/* signals.c: SIGINT, SIGTERM. */
void host_signals_install(void);        /* before anything that may wait */
void host_signals_script(lua_State *L); /* whose script they stop; NULL: none runs any more */
void host_signals_said(void);           /* the last word: the timer adds none */
bool host_was_terminated(void);         /* by SIGTERM */
int host_signal_code(int code);         /* 143, 130, or `code` where there was no signal */
void host_interrupt_forget(void);       /* the REPL's next line starts anew */
extern volatile int host_interrupts;    /* SIGINTs since host_interrupt_forget */

/* exit.c */
int host_traceback(lua_State *L);                      /* message handler: any error value -> text with a traceback */
int host_pcall(lua_State *L, int nargs, int nresults); /* with that handler */
void host_last_word(const char *text); /* the error's text, framed where there are several ranks, to stderr */
bool host_output_is_whole(
    void);                 /* flushes standard output; false, with a line on stderr, where any write of it failed */
void host_leave(int code); /* ends MPI (0) or the whole job (other), then the process */
int host_os_exit(lua_State *L); /* os.exit */

#endif
