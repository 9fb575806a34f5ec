/* traceback.c - the traceback under an error: the calls of the user's code. Calls inside the Lua modules of atomo are
 * counted in one line, unless the error was raised there by Lua itself (a fault of the library) or ATOMO_TRACEBACK=full
 * is in the environment. */
#include "host/host.h"
#include <stdlib.h>
#include <string.h>

/* Of a long stack the first lines and the last calls are printed, as by debug.traceback. At most FIRST_CALLS calls are
 * looked at for the first lines: to look at call n takes a time proportional to n. */
enum { FIRST_LINES = 12, FIRST_CALLS = 200, LAST_CALLS = 10 };

static char own_source[1024]; /* "@<folder of the modules>/atomo/"; "" before they were found */

void host_traceback_library(const char *folder)
{
    const size_t n = strlen(folder);
    if (n + sizeof "@/atomo/" > sizeof own_source) return;
    memcpy(own_source, "@", 1);
    memcpy(own_source + 1, folder, n);
    memcpy(own_source + 1 + n, "/atomo/", sizeof "/atomo/");
}

/* Returns true if the call at a level, or for one of C the call that it serves, is in the modules. */
static bool is_of_library(lua_State *L, int level)
{
    lua_Debug call;
    for (; lua_getstack(L, level, &call); level++) {
        lua_getinfo(L, "S", &call);
        if (*call.what != 'C') return *own_source && strncmp(call.source, own_source, strlen(own_source)) == 0;
    }
    return false;
}

/* Returns true if the text begins with a place in the modules: Lua raised the error there, not for a line of the user's
 * code. */
static bool raised_in_library(lua_State *L, const char *text)
{
    lua_Debug call;
    for (int level = 1; lua_getstack(L, level, &call); level++) {
        lua_getinfo(L, "S", &call);
        const size_t n = strlen(call.short_src);
        if (*call.what != 'C' && is_of_library(L, level))
            return strncmp(text, call.short_src, n) == 0 && text[n] == ':';
        if (*call.what != 'C') return false;
    }
    return false;
}

static int number_of_calls(lua_State *L)
{
    lua_Debug call;
    int below = 1, above = 1;
    while (lua_getstack(L, above, &call)) below = above, above *= 2;
    while (below < above) {
        const int middle = below + (above - below) / 2;
        if (lua_getstack(L, middle, &call))
            below = middle + 1;
        else
            above = middle;
    }
    return below;
}

static void push_call(lua_State *L, const lua_Debug *call)
{
    const char *place = call->currentline > 0 ? lua_pushfstring(L, "%s:%d:", call->short_src, call->currentline)
                                              : lua_pushfstring(L, "%s:", call->short_src);
    if (*call->namewhat)
        lua_pushfstring(L, "\n\t%s in function '%s'", place, call->name);
    else if (*call->what == 'm')
        lua_pushfstring(L, "\n\t%s in main chunk", place);
    else
        lua_pushfstring(L, "\n\t%s in function <%s:%d>", place, call->short_src, call->linedefined);
    lua_remove(L, -2);
}

void host_push_traceback(lua_State *L, const char *text)
{
    const char *wish = getenv("ATOMO_TRACEBACK");
    const bool full = (wish && strcmp(wish, "full") == 0) || raised_in_library(L, text);
    const int last = number_of_calls(L) - LAST_CALLS; /* the first of the last calls */
    int lines = 0, hidden = 0;
    lua_Debug call;
    lua_pushliteral(L, "\nstack traceback:");
    for (int level = 1; lua_getstack(L, level, &call); level++) {
        if ((lines >= FIRST_LINES || level >= FIRST_CALLS) && level < last) {
            lua_pushfstring(L, "\n\t... %d calls", last - level);
            lua_concat(L, 2);
            level = last, hidden = 0;
            lua_getstack(L, level, &call);
        }
        lua_getinfo(L, "Snl", &call);
        if (*call.what == 'C' && !*call.namewhat) continue; /* the host's own call: nothing but an address */
        if (!full && is_of_library(L, level)) {
            hidden++;
            continue;
        }
        if (hidden && lines) { /* those before the first line were called by it, those after the last called it */
            lua_pushfstring(L, "\n\t... %d call%s inside atomo", hidden, hidden > 1 ? "s" : "");
            lua_concat(L, 2);
        }
        push_call(L, &call);
        lua_concat(L, 2);
        lines++, hidden = 0;
    }
    if (lines) return;
    lua_pop(L, 1);
    lua_pushliteral(L, "");
}
