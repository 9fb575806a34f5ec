--- Checks that files which state the version of the program agree with project() in CMakeLists.txt.
local M = {}

-- path -> pattern of the version in it.
local STATED = {
  ["bindings/python/atomo/__init__.py"] = '__version__ = "([^"]*)"',
  ["CITATION.cff"] = "\nversion: (%S+)",
  ["CHANGELOG.md"] = "\n## (%S+)",
  ["packaging/spack/package.py"] = 'version%("([%d.]+)"',
}

--- Returns the version of CMakeLists.txt, nil if it states none.
function M.of(tree)
  return (tree["CMakeLists.txt"] or ""):match "project%(%s*%S+%s+VERSION%s+([%d.]+)"
end

function M.check(tree, paths, fault)
  local version = M.of(tree)
  if not version then
    if tree["CMakeLists.txt"] then fault "CMakeLists.txt: project() states no VERSION" end
    return
  end
  local function compare(path, found)
    if found ~= version then
      fault(("%s: version %s, project() in CMakeLists.txt has %s"):format(path, found or "is not stated", version))
    end
  end
  for _, path in ipairs(paths) do
    if STATED[path] then compare(path, tree[path]:match(STATED[path])) end
    if path:find "%.rockspec$" then
      compare(path, tree[path]:match '\nversion = "([%d.]+)%-%d+"')
      compare(path .. " (its name)", path:match "%-([%d.]+)%-%d+%.rockspec$")
    end
  end
end

return M
