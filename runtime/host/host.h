/* host.h - functions that the files of the host program share. Private to atomo-lua; the library does not use Lua. */
#ifndef ATOMO_HOST_H
#define ATOMO_HOST_H

#include "atomo_bindings.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>

enum { HOST_OK = 0, HOST_SCRIPT_ERROR = 1, HOST_USAGE = 2 };

/* paths.c: finds the Lua modules relative to the executable, puts their folder first in package.path, and runs
 * atomo/host/init.lua. Returns 0 with the module's table on the stack, or a Lua status with the error's text on it. */
int host_load_modules(lua_State *L, const char *argv0);

/* repl.c */
void host_repl(lua_State *L);

/* signals.c: SIGINT, SIGTERM, SIGUSR1, SIGUSR2. */
void host_signals_install(void);        /* called before anything that may wait */
void host_signals_script(lua_State *L); /* sets the state whose script signals stop; NULL: no script runs */
void host_signals_said(void);           /* a last word has been printed, so the timer prints none */
bool host_was_terminated(void);         /* SIGTERM or SIGUSR2 has arrived, or a run has saved and stops for one */
bool host_job_is_ending(void);          /* such a signal came from mpirun, which ends all ranks, or the run has saved */
bool host_is_spoken_for(void);          /* a SIGTERM ended this script, and another rank says so or says why */
int host_signal_code(int code);      /* exit code: 75 if such a run has saved, 143 or 130 after a signal, else `code` */
void host_interrupt_forget(void);    /* resets the state after SIGINT, for the next line at the prompt */
extern volatile int host_interrupts; /* SIGINTs since host_interrupt_forget */

/* traceback.c */
void host_traceback_library(const char *folder);          /* says where the Lua modules are, for the next function */
void host_push_traceback(lua_State *L, const char *text); /* pushes "\nstack traceback:..." for an error of this text */

/* finalizers.c */
int host_guard_finalizer(lua_State *L); /* Lua function: finalizer -> one that prints an error and does not raise it */
bool host_finalizer_failed(void);       /* such an error was printed since host_finalizer_forget */
void host_finalizer_forget(void);

/* exit.c */
bool host_is_alone(void);                              /* no MPI, or one rank */
int host_traceback(lua_State *L);                      /* message handler: any error value -> text with a traceback */
int host_pcall(lua_State *L, int nargs, int nresults); /* lua_pcall with that handler */
void host_last_word(const char *text); /* prints the error's text to stderr, with a frame if there are several ranks */
/* Flushes standard output; returns false, with a line on stderr, if this or an earlier write to it failed. */
bool host_output_is_whole(void);
void host_close(lua_State *L);  /* runs the finalizers of all objects and frees the state; in a finalizer: nothing */
void host_leave(int code);      /* ends MPI (code 0) or aborts the job (other codes), then ends the process */
int host_os_exit(lua_State *L); /* os.exit */

#endif
