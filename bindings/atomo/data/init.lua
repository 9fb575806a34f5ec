--- Data sets and their loaders (stages 1 and 2): atomo.data.open reads files, atomo.data.loader makes batches. set.lua
-- defines sets; docs/data.md describes readers, sets and loaders.
local M = {loader = require "atomo.data.loader", tensors = require("atomo.data.tensors").tensors,
  open = require "atomo.data.open"}

local classic, sets = require "atomo.data.classic", require "atomo.data.set"
M.synthetic = require("atomo.data.synthetic").synthetic
M.cifar10, M.cifar100, M.mnist = classic.cifar10, classic.cifar100, classic.mnist
M.set, M.split, M.channel_stats = sets.set, sets.split, sets.channel_stats

return M
