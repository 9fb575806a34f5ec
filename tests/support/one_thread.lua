--- Runs the specs of a describe block on one thread, because small tensors are slower on two; restores the number of
--- threads afterwards: one_thread(lazy_setup, lazy_teardown). Only spec files see these two functions of busted.
local atomo = require "atomo"

---@param lazy_setup fun(fn: fun())
---@param lazy_teardown fun(fn: fun())
return function(lazy_setup, lazy_teardown)
  local threads
  lazy_setup(function()
    threads = atomo.num_threads()
    atomo.set_num_threads(1)
  end)
  lazy_teardown(function() atomo.set_num_threads(threads) end)
end
