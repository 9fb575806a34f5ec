--- The class of an exchange's batches: of a compressor in C native.lua, of one in Lua scripted.lua.
local native = require "atomo.exchange.bucket.native"
local scripted = require "atomo.exchange.bucket.scripted"

return function(exchange) return exchange.compressor.h and native or scripted end
