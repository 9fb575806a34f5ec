--- The public names of atomo at run time, by page of the reference: name, value, and the annotations of its source.
local own_fields = require "atomo.core.own_fields"
local pages = require "atomo.tools.reference.pages"
local quote = require("atomo.core.shell_words").quote
local source = require "atomo.tools.reference.source"

local M = {}

-- Names that are reachable, but only of use to other files of atomo.
local internal = {}
for name in ([[F.batch_norm_with F.conv_transpose2d_with F.check_dropout F.check_loss F.dropout_state F.dropout_stream
  F.loss_options F.next_dropout_stream F.put_dropout_state F.transpose_window atomo.Tensor
  nn.MultiheadAttention atomo.cli.suggest atomo.cli.help atomo.cli.read atomo.log.width atomo.log.null
  Compressor:begin_step Compressor:decode_step Compressor:decode_tensor Compressor:encode_step Compressor:end_step
  Compressor:finish Compressor:finish_step Compressor:inner Compressor:plan Compressor:planned Compressor:prepare
  Compressor:prepare_planned Compressor:push Compressor:put_back Compressor:put_state Compressor:put_learnt
  Compressor:restart
  Compressor:undo_step Compressor:wire_max Compressor:override_of
  Exchange:average_or_why Exchange:coding Exchange:commit Exchange:encoding Exchange:new Exchange:open Exchange:replace
  Exchange:replan Exchange:set_step Exchange:why_parted Exchange:layers Exchange:average
  Communicator:check Communicator:tag Communicator:bytes Loader:tag Module:text Optimizer:trained]]):gmatch "%S+" do
  internal[name] = true
end

--- Returns the files of rooms of bindings/atomo, in order.
local function files_of(rooms)
  local root = debug.getinfo(1, "S").source:match "^@(.*)/tools/reference/[^/]*$"
  local list = {}
  for room in rooms:gmatch "%S+" do
    local pipe = io.popen(("find -L %s -name '*.lua' | LC_ALL=C sort"):format(quote(root .. "/" .. room)))
    for path in pipe:lines() do list[#list + 1] = path end
    pipe:close()
  end
  return list
end

local function is_callable(value)
  return type(value) == "function" or type(value) == "table" and (getmetatable(value) or {}).__call ~= nil
end

--- Returns the entry of a layer: the arguments of its constructor, and the comment above the class or init.
local function layer_entry(name, class, paths)
  local init = source.of_function(rawget(class, "init"))
  local above = source.of_name(name, paths)
  if init and (#init.text > 0 or not above) then return init end
  if init then
    above.arguments, above.params = init.arguments, #above.params > 0 and above.params or init.params
  elseif above then
    above.arguments = above.arguments or {}
  end
  return above
end

--- Returns the entry of a function that a folder's `return function` defines: NAME.lua is the function NAME.
local function whole_file(entry, name) return entry and entry.path:match "([^/]*)%.lua$" == name and entry end

local function entry_of(name, value, paths, prefix)
  local meta = source.of_meta(prefix .. name)
  if meta then return meta end
  if type(value) == "table" and rawget(value, "is_module_class") then return layer_entry(name, value, paths) end
  local entry = source.of_function(value)
  if entry and source.is_named(entry, name) or whole_file(entry, name) then return entry end
  local named = source.of_name(name, paths)
  return named or entry
end

--- Returns the pages with `entries`, a sorted list of {name = "F.relu", value =, arguments =, text =, params =,
--- returns =, usage =, path =, line =} each.
---@param atomo table  the module
---@return table[]
function M.pages(atomo)
  local list = pages(atomo)
  for _, page in ipairs(list) do
    page.entries = {}
    for _, part in ipairs(page.parts) do
      local names, fields, paths = {}, own_fields(part.holder), files_of(part.rooms)
      for name, value in pairs(fields) do
        local plain = type(name) == "string" and not name:find "^_" and is_callable(value)
        if plain and not internal[part.prefix .. name] then names[#names + 1] = name end
      end
      table.sort(names)
      for _, name in ipairs(names) do
        local entry = entry_of(name, fields[name], paths, part.prefix) or source.parse {}
        local all = {}
        for key, v in pairs(entry) do all[key] = v end
        all.name, all.value, all.prefix = part.prefix .. name, fields[name], part.prefix
        table.insert(page.entries, all)
      end
    end
  end
  return list
end

return M
