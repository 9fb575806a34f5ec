--- Delays the packets that the hosts of a netlab.sh network send: the kernel's own delay (netem) is missing on many
-- machines. Runs in the switch's namespace until it is ended; prints "ready" when all links are connected.
--   atomo-lua scripts/netlab/delay.lua MILLISECONDS HOSTS
-- Host K's cable ends at device wireK, the switch's port at relayK. A packet that arrives at wireK goes to relayK
-- after the delay, in order; one that arrives at relayK goes to wireK at once. So the round trip between two hosts gets
-- longer by twice the delay. Packets are read and sent with the kernel's offload header, so that segments up to 64 kB
-- and unfilled checksums pass unchanged.
local ffi = require "ffi"
ffi.cdef [[
typedef struct {
  uint16_t family, protocol;
  int index;
  uint16_t type;
  uint8_t kind, length, address[8];
} netlab_address;
typedef struct { int fd; short events, revents; } netlab_poll;
typedef struct { long seconds, nanoseconds; } netlab_time;
int socket(int domain, int type, int protocol);
int bind(int fd, const netlab_address *address, unsigned size);
int setsockopt(int fd, int level, int name, const void *value, unsigned size);
long recv(int fd, void *data, size_t size, int flags);
long send(int fd, const void *data, size_t size, int flags);
unsigned if_nametoindex(const char *name);
int ppoll(netlab_poll *polls, unsigned long n, const netlab_time *timeout, const void *signals);
int clock_gettime(int clock, netlab_time *now);
void *malloc(size_t size);
void free(void *data);
char *strerror(int code);
]]
local C = ffi.C

local AF_PACKET, SOCK_RAW, NONBLOCK, ETH_P_ALL = 17, 3, 2048, 0x0300 -- the protocol is in network order
local SOL_PACKET, VNET_HEADER, IGNORE_OUTGOING, QDISC_BYPASS = 263, 15, 23, 20
local SOL_SOCKET, RECEIVE_BUFFER = 1, 33 -- SO_RCVBUFFORCE
local EAGAIN, ENOBUFS, POLLIN, MONOTONIC = 11, 105, 1, 1
local LARGEST = 2 ^ 17     -- bytes of a packet with its headers
local MOST_HELD = 2 ^ 28   -- bytes that a link holds; further packets are lost, as in a switch
local BATCH = 64           -- packets of a link that are read before the others' turn

local delay, hosts = tonumber(arg[1]), tonumber(arg[2])
if not delay or delay < 0 or not hosts or hosts < 1 then error("usage: delay.lua MILLISECONDS HOSTS", 0) end

local function fail(what)
  error(("delay.lua: %s: %s"):format(what, ffi.string(C.strerror(ffi.errno()))), 0)
end

local time = ffi.new "netlab_time"
local function now() -- in milliseconds
  C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
end

--- Returns a raw socket on a device.
local function open(device)
  local fd = C.socket(AF_PACKET, SOCK_RAW + NONBLOCK, ETH_P_ALL)
  if fd < 0 then fail "raw socket" end
  local yes, room = ffi.new("int[1]", 1), ffi.new("int[1]", 2 ^ 25)
  for _, option in ipairs {VNET_HEADER, IGNORE_OUTGOING, QDISC_BYPASS} do
    if C.setsockopt(fd, SOL_PACKET, option, yes, 4) < 0 then fail(device .. ": option " .. option) end
  end
  if C.setsockopt(fd, SOL_SOCKET, RECEIVE_BUFFER, room, 4) < 0 then fail(device .. ": receive buffer") end
  local address = ffi.new("netlab_address", {family = AF_PACKET, protocol = ETH_P_ALL})
  address.index = C.if_nametoindex(device)
  if address.index == 0 or C.bind(fd, address, 20) < 0 then fail(device) end
  return fd
end

-- A link's packets are at first .. last of data, size and due.
local links = {}
for k = 1, hosts do
  local wire, relay = open("wire" .. k), open("relay" .. k)
  for _, way in ipairs {{wire, relay, delay}, {relay, wire, 0}} do
    links[#links + 1] = {from = way[1], to = way[2], delay = way[3], first = 1, last = 0, held = 0, data = {},
      size = {}, due = {}}
  end
end
local polls = ffi.new("netlab_poll[?]", #links)
for i, link in ipairs(links) do polls[i - 1].fd, polls[i - 1].events = link.from, POLLIN end

local packet = ffi.new("uint8_t[?]", LARGEST)

--- Sends the packets that are due; returns the time of the next one.
local function pass_on(link, at)
  while link.first <= link.last and link.due[link.first] <= at do
    local i = link.first
    local sent = C.send(link.to, link.data[i], link.size[i], 0)
    if sent < 0 and (ffi.errno() == EAGAIN or ffi.errno() == ENOBUFS) then return at + 0.1 end
    C.free(link.data[i]) -- sent, or lost: the device may be down
    link.held = link.held - link.size[i]
    link.data[i], link.size[i], link.due[i] = nil, nil, nil
    link.first = i + 1
  end
  return link.first <= link.last and link.due[link.first] or math.huge
end

--- Reads what has arrived; returns whether more may be there.
local function receive(link, at)
  for _ = 1, BATCH do
    local n = tonumber(C.recv(link.from, packet, LARGEST, 0))
    if n <= 0 then return false end
    if link.delay == 0 and link.first > link.last then
      C.send(link.to, packet, n, 0)
    elseif link.held + n <= MOST_HELD then
      local copy = C.malloc(n)
      if copy == nil then fail "memory" end
      ffi.copy(copy, packet, n)
      link.last = link.last + 1
      link.data[link.last], link.size[link.last], link.due[link.last] = copy, n, at + link.delay
      link.held = link.held + n
    end
  end
  return true
end

io.write "ready\n"
io.flush()
local wait = ffi.new "netlab_time"
while true do
  local at, soonest, more = now(), math.huge, false
  for i, link in ipairs(links) do
    if polls[i - 1].revents ~= 0 then more = receive(link, at) or more end
    soonest = math.min(soonest, pass_on(link, now()))
  end
  local rest = more and 0 or math.max(0, math.min(1000, soonest - now()))
  wait.seconds = math.floor(rest / 1e3)
  wait.nanoseconds = (rest % 1e3) * 1e6
  C.ppoll(polls, #links, wait, nil)
end
