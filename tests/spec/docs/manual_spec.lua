-- The manual pages: made from the option tables, and right for groff.
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)
local root = require "support.root"
local shell = require "support.shell"

describe("the manual pages", function()
  spec("have every option of every script, and groff finds no fault in them", function()
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    local out, code = spawn.host {"-e", ("print(table.concat(require 'atomo.tools.manual' ('%s', '%s'), ' '))"):format(
      spawn.exe, folder)}
    local headers = ("{'%sruntime/atomo_codec.h', '%sruntime/atomo.h'}"):format(root, root)
    local _, status = spawn.host {"-e", ("require 'atomo.tools.reference.manual' (%s, '%s')"):format(headers, folder)}
    assert.equal(0, status)
    local pages = {}
    for _, name in ipairs {"atomo_codec", "atomo"} do
      pages[name .. ".3"] = shell.read(("%s/%s.3"):format(folder, name)) or ""
    end
    for name in out:gmatch "%S+" do pages[name] = shell.read(("%s/%s.1"):format(folder, name)) or "" end
    local faults = spawn.have "groff" and spawn.run(("sh -c 'groff -man -Tutf8 -ww -z %s/*.[13]'"):format(folder)) or ""
    os.execute("rm -r " .. folder)
    assert.equal(0, code, out)
    assert.equal("", faults)
    for name, wanted in pairs {
      ["atomo-lua"] = {"\\-\\-completion bash", ".SH NAME", "\\-e CODE", "atomo\\-lua\\-train_cifar"},
      ["atomo-lua-train_cifar"] = {"\\-\\-weight\\-decay X", "wide_resnet28_10", "terngrad", ".SH EXAMPLES"},
      ["atomo_codec.3"] = {"atomo_codec_decode_add_step(", "ATOMO_ESHAPE = \\-2", "#include <atomo_codec.h>"},
      ["atomo.3"] = {"atomo_comm_allreduce(", "torch.optim.SGD"},
      ["atomo-lua-doctor"] = {"\\-\\-no\\-mpi"},
      ["atomo-lua-predict"] = {"IMAGE..."},
    } do
      for _, text in ipairs(wanted) do assert(pages[name]:find(text, 1, true), ("%s lacks %s"):format(name, text)) end
    end
    assert.is_nil(pages["atomo-lua-check_house"])
  end)
end)
