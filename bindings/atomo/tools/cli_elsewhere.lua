--- Options in the names of Torch's scripts and of the ATOMO paper's programs (cli.lua): -batchSize 32 is read as
-- --batch 32, and --code svd --svd-rank 3 as --compress svd:atoms=3. Each prints one line that says what it is read as.
-- A script that has an option of that name keeps it.
local launcher = require "atomo.core.launcher"

local M = {}

-- name -> the option here, or {option, function of the value's text}
local same = {
  ["batch-size"] = "batch", ["learning-rate"] = "lr", wd = "weight-decay", ["max-epoch"] = "epochs",
  ["n-epochs"] = "epochs", ["num-epochs"] = "epochs", ["n-threads"] = "threads", ["num-threads"] = "threads",
  ["manual-seed"] = "seed", ["train-dir"] = "save", network = {"model", string.lower}, arch = {"model", string.lower},
}
local of_compress = {code = true, ["svd-rank"] = true, ["quantization-level"] = true}
local codes = {sgd = "none"} -- names of --code that differ here
local key_of = {["svd-rank"] = {"svd", "atoms"}, ["quantization-level"] = {"qsgd", "bits"}}

local function say(who, old, new)
  if launcher.rank() == 0 then io.stderr:write(("%s: %s is read as %s\n"):format(who, old, new)) end
end

--- Returns the text of --compress for values of --code, --svd-rank and --quantization-level. A number that the code
--- does not use is left out, as in the paper's programs.
local function compressor_of(given)
  local code = given.code or given["svd-rank"] and "svd" or "qsgd"
  local text = codes[code:lower()] or code:lower()
  for name, place in pairs(key_of) do
    if given[name] and place[1] == text then return ("%s:%s=%s"):format(text, place[2], given[name]) end
  end
  return text
end

--- Returns args with other programs' names replaced by the script's options. by_name: the script's options by canonical
--- name; canonical: makes a name canonical.
---@param who string  the script, for the notices
function M.translated(who, args, by_name, canonical)
  local out, compress, as_typed, i = {}, {}, {}, 1
  while i <= #args do
    local a = args[i]
    if a == "--" then break end
    local name, text = a:match "^%-%-?(%a[^=]*)=(.*)$"
    name = canonical(name or a:match "^%-%-?(%a[^=]*)$" or "")
    local to = not by_name[name] and (same[name] or of_compress[name])
    local target = to == true and "compress" or type(to) == "table" and to[1] or to
    if not to or not by_name[target] or not (text or args[i + 1]) then
      out[#out + 1] = a
    else
      if not text then i, text = i + 1, args[i + 1] end
      local typed = ("%s %s"):format(a:match "^[^=]+", text)
      if to == true then
        compress[name], as_typed[#as_typed + 1] = text, typed
      else
        text = type(to) == "table" and to[2](text) or text
        out[#out + 1], out[#out + 2] = "--" .. target, text
        say(who, typed, ("--%s %s"):format(target, text))
      end
    end
    i = i + 1
  end
  if next(compress) then
    local text = compressor_of(compress)
    out[#out + 1], out[#out + 2] = "--compress", text
    say(who, table.concat(as_typed, " "), "--compress " .. text)
  end
  for k = i, #args do out[#out + 1] = args[k] end
  return out
end

return M
