--- Lists the network interfaces of this host and their addresses.
local ffi = require "ffi"

ffi.cdef [[
struct atomo_doctor_ifaddrs {
  struct atomo_doctor_ifaddrs *next;
  char *name;
  unsigned flags;
  void *address, *mask, *other, *data;
};
int atomo_doctor_getifaddrs(struct atomo_doctor_ifaddrs **list) __asm__("getifaddrs");
void atomo_doctor_freeifaddrs(struct atomo_doctor_ifaddrs *list) __asm__("freeifaddrs");
const char *atomo_doctor_inet_ntop(int family, const void *bytes, char *text, unsigned size) __asm__("inet_ntop");
]]

local UP, LOOPBACK = 1, 8 -- IFF_UP, IFF_LOOPBACK
-- Address family -> offset of the address in struct sockaddr_in or sockaddr_in6. AF_INET6 depends on the system.
local OFFSETS = {[2] = 4, [ffi.os == "Linux" and 10 or ffi.os == "OSX" and 30 or 28] = 8}

--- Returns the address as text; nil if it is neither IPv4 nor IPv6.
local function address_text(address)
  if address == nil then return nil end
  local bytes = ffi.cast("const uint8_t *", address)
  local family = ffi.os == "Linux" and ffi.cast("const uint16_t *", address)[0] or bytes[1]
  if not OFFSETS[family] then return nil end
  local text = ffi.new "char[64]"
  if ffi.C.atomo_doctor_inet_ntop(family, bytes + OFFSETS[family], text, 64) == nil then return nil end
  return ffi.string(text)
end

--- Returns the interfaces that are up and have an address, in the system's order; nil if the system does not say.
---@return {name: string, loopback: boolean, addresses: string[]}[]?
return function()
  local list, by_name = {}, {}
  local first = ffi.new "struct atomo_doctor_ifaddrs *[1]"
  if ffi.C.atomo_doctor_getifaddrs(first) ~= 0 then return nil end
  local entry = first[0]
  while entry ~= nil do
    local name, text = ffi.string(entry.name), address_text(entry.address)
    if text and bit.band(entry.flags, UP) ~= 0 then
      local item = by_name[name]
      if not item then
        item = {name = name, loopback = bit.band(entry.flags, LOOPBACK) ~= 0, addresses = {}}
        by_name[name], list[#list + 1] = item, item
      end
      table.insert(item.addresses, text)
    end
    entry = entry.next
  end
  ffi.C.atomo_doctor_freeifaddrs(first[0])
  return list
end
