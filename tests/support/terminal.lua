--- Runs the program under test on a pseudo-terminal, as a person would.
local ffi = require "ffi"
local spawn = require "support.spawn"
ffi.cdef [[
struct atomo_test_winsize { unsigned short row, col, x, y; };
struct atomo_test_pollfd { int fd; short events, revents; };
int forkpty(int *master, char *name, const void *termios, const struct atomo_test_winsize *size);
int execv(const char *path, char *const argv[]);
void _exit(int code);
int atomo_test_poll(struct atomo_test_pollfd *fds, unsigned long n, int timeout) __asm__("poll");
long atomo_test_read(int fd, void *buf, size_t n) __asm__("read");
long atomo_test_write(int fd, const void *buf, size_t n) __asm__("write");
int atomo_test_close(int fd) __asm__("close");
int waitpid(int pid, int *status, int options);
int setenv(const char *name, const char *value, int overwrite);
]]
local C = ffi.C
local POLLIN, LIMIT = 1, 20000 -- ms without any output, on a busy machine

local Terminal = {}
Terminal.__index = Terminal

--- Starts the program with these arguments.
---@param arguments string[]
function Terminal.start(arguments)
  local words = {spawn.exe, unpack(arguments)}
  local argv = ffi.new("const char *[?]", #words + 1)
  for i, word in ipairs(words) do argv[i - 1] = word end
  local master = ffi.new "int[1]"
  local size = ffi.new("struct atomo_test_winsize", {24, 80})
  C.setenv("XDG_STATE_HOME", "/nonexistent", 1) -- no history of the user's
  C.setenv("TERM", "xterm", 1)
  local pid = C.forkpty(master, nil, nil, size)
  if pid == 0 then
    C.execv(spawn.exe, ffi.cast("char *const *", argv))
    C._exit(127)
  end
  assert(pid > 0, "no pseudo-terminal")
  return setmetatable({pid = pid, fd = master[0], seen = ""}, Terminal)
end

--- Reads until the output since the last call contains a pattern; returns that output.
---@param pattern string
function Terminal:expect(pattern)
  local buffer, fds = ffi.new "char[4096]", ffi.new "struct atomo_test_pollfd[1]"
  while true do
    local from, to = self.seen:find(pattern)
    if from then
      local text = self.seen:sub(1, to)
      self.seen = self.seen:sub(to + 1)
      return text
    end
    fds[0].fd, fds[0].events = self.fd, POLLIN
    local n = C.atomo_test_poll(fds, 1, LIMIT) > 0 and C.atomo_test_read(self.fd, buffer, 4096) or 0
    if n <= 0 then error(("expected %q, the terminal has %q"):format(pattern, self.seen), 2) end
    self.seen = self.seen .. ffi.string(buffer, n)
  end
end

function Terminal:send(text) assert(C.atomo_test_write(self.fd, text, #text) == #text) end

--- Waits for the end; returns the exit code.
function Terminal:wait()
  local status = ffi.new "int[1]"
  C.waitpid(self.pid, status, 0)
  C.atomo_test_close(self.fd)
  return math.floor(status[0] / 256)
end

return Terminal
