-- scripts/get_data.sh without a network: from a folder and a file:// address, verified, resumed, unpacked, read; what
-- it says when a file cannot be fetched or is another one.
local spawn = require "support.spawn"
local process = spawn.specs(it, pending)
local folders = require "support.folders"
local atomo = require "atomo"

local script = require "support.root" .. "scripts/get_data.sh"
local bytes_of = require("support.shell").read

local function run(arguments) return spawn.run(("sh %s %s"):format(spawn.quote(script), arguments), {timeout = 30}) end

--- One record of CIFAR-10's files.
local function record(label) return string.char(label) .. ("\7"):rep(3072) end

--- Calls fn(path) for a folder with a small archive of CIFAR-10's name in path/mirror.
local function with_mirror(fn)
  folders.with({["cifar-10-batches-bin/data_batch_1.bin"] = record(3), ["cifar-10-batches-bin/test_batch.bin"] =
    record(4), ["mirror/train_32x32.mat"] = "one", ["mirror/test_32x32.mat"] = "two"}, function(path)
    assert(os.execute(("cd %s && tar -czf mirror/cifar-10-binary.tar.gz cifar-10-batches-bin"):format(
      spawn.quote(path))) == 0)
    fn(path)
  end)
end

describe("get_data.sh", function()
  process("unpacks an archive, which can be read then, and has nothing to do when it is run again", function()
    with_mirror(function(path)
      local options = ("--from %s/mirror --to '%s/my data' --no-verify cifar10"):format(path, path)
      local output, code = run(options)
      assert.equal(0, code, output)
      assert.truthy(output:find("cifar10 is complete", 1, true), output)
      local d = atomo.data.open(path .. "/my data/cifar10")
      assert.same({{3}, {4}}, {d.train.labels:totable(), d.test.labels:totable()})
      assert.is_nil(bytes_of(path .. "/my data/cifar10/cifar-10-binary.tar.gz"))
      output, code = run(options:gsub("/mirror", "/cifar-10-batches-bin"))
      assert.equal(0, code, output)
      assert.truthy(output:find("cifar-10-batches-bin is there", 1, true), output)
    end)
  end)

  process("resumes where a download ended", function()
    if not spawn.have "curl" then return pending "needs curl" end
    with_mirror(function(path)
      folders.write(path .. "/to/svhn/train_32x32.mat.part", "X")
      folders.write(path .. "/to/svhn/test_32x32.mat", "mine")
      local output, code = run(("--from file://%s/mirror --to %s/to --no-verify svhn"):format(path, path))
      assert.equal(0, code, output)
      assert.equal("Xne", bytes_of(path .. "/to/svhn/train_32x32.mat")) -- the first byte was there
      assert.equal("mine", bytes_of(path .. "/to/svhn/test_32x32.mat"))
    end)
  end)

  process("continues a download that is cut off, by itself, until one gets no further", function()
    with_mirror(function(path)
      folders.write(path .. "/bin/curl", [[#!/bin/sh
        while [ $# -gt 1 ]; do if [ "$1" = -o ]; then out=$2; fi; shift; done
        from=${1#file://} && touch "$out" && had=$(wc -c <"$out")
        [ "$had" -lt "${MOST:-9}" ] || exit 18
        tail -c +$((had + 1)) "$from" | head -c 1 >>"$out"
        [ "$(wc -c <"$out")" = "$(wc -c <"$from")" ] || exit 18]])
      os.execute(("chmod +x %s/bin/curl"):format(path))
      local command = ("env PATH=%s/bin:/usr/bin:/bin %%s sh %s --from file://%s/mirror --no-verify --to %s/%%s svhn")
        :format(path, spawn.quote(script), path, path)
      local output, code = spawn.run(command:format("", "to"), {timeout = 30})
      assert.equal(0, code, output)
      assert.truthy(output:find("was cut off after 2 bytes: going on", 1, true), output)
      assert.same({"one", "two"}, {bytes_of(path .. "/to/svhn/train_32x32.mat"), bytes_of(path ..
        "/to/svhn/test_32x32.mat")})
      output, code = spawn.run(command:format("MOST=2", "part"), {timeout = 30})
      assert.equal(1, code, output)
      assert.truthy(output:find("cannot fetch", 1, true), output)
      assert.equal("on", bytes_of(path .. "/part/svhn/train_32x32.mat.part"))
    end)
  end)

  process("refuses a file with another checksum, and leaves none behind", function()
    with_mirror(function(path)
      local output, code = run(("--from %s/mirror --to %s/to svhn"):format(path, path))
      assert.equal(1, code, output)
      assert.truthy(output:find("sum f97c5d29941bfb1b2fdab0874906ab82, expected e26dedcc434d2e4c54c9b2d4a06d8373", 1,
        true), output)
      assert.is_nil(bytes_of(path .. "/to/svhn/train_32x32.mat.part"))
      assert.is_nil(bytes_of(path .. "/to/svhn/train_32x32.mat"))
      folders.write(path .. "/to/svhn/train_32x32.mat", "mine")
      output, code = run(("--from %s/mirror --to %s/to svhn"):format(path, path))
      assert.equal(1, code, output)
      assert.truthy(output:find("remove it, or use --no-verify", 1, true), output)
      assert.equal("mine", bytes_of(path .. "/to/svhn/train_32x32.mat"))
    end)
  end)

  process("says what to fetch by hand, and where to put it", function()
    with_mirror(function(path)
      local output, code = run(("--from %s/mirror --to %s/to mnist"):format(path, path))
      assert.equal(1, code, output)
      for _, text in ipairs {"cannot fetch " .. path .. "/mirror/train-images-idx3-ubyte.gz",
        "MD5 f68b3c2dcbeaaa9fbdd348bbdeb94873", path .. "/to/mnist/"} do
        assert.truthy(output:find(text, 1, true), output)
      end
    end)
  end)

  process("refuses unknown names and options, and lists the names in its help", function()
    for arguments, text in pairs {["cifar11"] = "unknown data set 'cifar11'", ["--form x"] = "unknown option '--form'",
      [""] = "no data set named", ["--to"] = "--to wants a value", ["--from no/such/folder mnist"] = "no folder"} do
      local output, code = run(arguments)
      assert.equal(1, code, arguments)
      assert.truthy(output:find(text, 1, true), output)
    end
    local output, code = run "--help"
    assert.equal(0, code)
    for _, name in ipairs {"cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"} do
      assert.truthy(output:find(name, 1, true), name)
    end
  end)
end)
