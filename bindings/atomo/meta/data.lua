--- Annotations of atomo.data.loader, a callable table, for editors, help() and the reference. Nothing loads this file.
---@meta
-- luacheck: ignore 212 241

local data = {}

--- Makes a loader of a set of images, of tensors, or of a user's set with size() and get(i). docs/data.md describes the
--- options.
---@param o {set: table, batch: integer?, rank: integer?, size: integer?, seed: integer?, shuffle: boolean?, augment:
--- any, mean: number[]?, std: number[]?, drop_last: boolean?}
---@return atomo.Loader
---@usage atomo.data.loader({set = set, batch = 4}).steps --> 2
function data.loader(o) end
