--- Writes a completion script for bash from the options of the scripts (`atomo-lua --completion bash`): options, their
-- choices, compressors, models, files.
local compress = require "atomo.compress"
local declarations = require "atomo.tools.declarations"

local M = {}

local HOST_OPTIONS = "-e -l -i -v -E -j -O --help --version --completion"
local COMMANDS = "doctor new test"

-- ---- words -------------------------------------------------------------------------------------------------------

local function compressor_words()
  local names = {}
  for i, entry in ipairs(compress.compressors()) do names[i] = entry.name end
  return table.concat(names, " ")
end

-- Option name -> function that returns its words, for options without choices.
local WORDS = {
  compress = compressor_words,
  model = function() return table.concat(require("models").names(), " ") end,
}

local NUMBERS = {int = true, number = true}

--- Returns the words of an option's value, and whether it may be a file.
local function value_words(o)
  if o.choices then return table.concat(o.choices, " "), false end
  if NUMBERS[o[2]] or NUMBERS[o.of] then return "", false end
  return WORDS[o[1]] and WORDS[o[1]]() or "", o[1] ~= "compress"
end

-- ---- bash --------------------------------------------------------------------------------------------------------

-- bash splits words at "=", so that --model=res is three words. `words` and `files` say how the current word ends.
local FIRST = [[
# Completion of atomo-lua for bash, written by atomo-lua --completion bash. To use it:
#   source <(atomo-lua --completion bash)
_atomo_lua() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} script= words= files=yes i
  if [ "$cur" = = ]; then
    cur=
  elif [ "$prev" = = ]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
    -e | -l | -j | --completion) ((i++)) ;;
    -*) ;;
    *) script=${COMP_WORDS[i]##*/}; break ;;
    esac
  done
  case $script in
  '')
    case $prev in
    --completion) words=bash files= ;;
    -e | -l | -j) files= ;;
    *) case $cur in -*) words='%s' files= ;; *) words='%s' ;; esac ;;
    esac ;;
  test) case $cur in -*) words=--slowest files= ;; esac ;;
  new) files=; [ "$prev" = new ] && words='basis model train' ;;
]]
local LAST = [[
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [ -n "$files" ]; then
    local IFS=$'\n' # names of files may have spaces
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen -f -- "$cur"))
  fi
}
complete -F _atomo_lua atomo-lua
]]

--- Returns the names of all options as typed, for `words`.
local function option_names(spec)
  local names = {}
  for _, o in ipairs(spec.options or {}) do
    names[#names + 1] = (o[2] == "flag" and o[3] and "--no-" or "--") .. o[1]
  end
  names[#names + 1] = "--help"
  return table.concat(names, " ")
end

--- Returns the branch of one script: by the option before the current word, else the options.
local function branch(name, spec)
  local lines = {("  %s)\n    case $prev in"):format(name)}
  for _, o in ipairs(spec.options or {}) do
    if o[2] ~= "flag" then
      local words, files = value_words(o)
      lines[#lines + 1] = ("    --%s) words='%s' files=%s ;;"):format(o[1], words, files and "yes" or "")
    end
  end
  lines[#lines + 1] = ("    *) case $cur in -*) words='%s' files= ;; esac ;;\n    esac ;;"):format(option_names(spec))
  return table.concat(lines, "\n")
end

--- Returns the completion script for bash.
---@return string
function M.bash()
  local parts = {FIRST:format(HOST_OPTIONS, COMMANDS):sub(1, -2)}
  for _, entry in ipairs(declarations()) do parts[#parts + 1] = branch(entry.name, entry.spec) end
  parts[#parts + 1] = LAST
  return table.concat(parts, "\n")
end

return M
