-- Tables of text: quotes, separators, the label's column, classes and regression, standardised features; bad lines.
local atomo = require "atomo"
local fails = require "support.fails"
local folders = require "support.folders"
local data = atomo.data

--- Calls fn(path) for a file of that name.
local function with_file(name, text, fn) folders.with({[name] = text}, function(path) fn(path .. "/" .. name) end) end

local flowers = "length,width,species\n1.5,2,\"rose, red\"\n3,-4e1,iris\n5,6,iris\n"

describe("a table of text", function()
  it("has features, and classes in the order of their names", function()
    with_file("a.csv", flowers, function(path)
      local d = data.open(path)
      assert.same({{1.5, 2}, {3, -40}, {5, 6}}, d.train.x:totable())
      assert.same({1, 0, 0}, d.train.y:totable())
      assert.equal("i32", d.train.y:dtype())
      assert.same({"iris", "rose, red"}, d.names)
      assert.equal(2, d.classes)
      assert.same({2}, d.shape)
      assert.equal("species", d.label)
      assert.same({"length", "width", "species"}, d.columns)
    end)
  end)

  it("may have quotes, CRLF, blank lines, a byte order mark, other separators, and no newline at its end", function()
    for name, text in pairs {
      ["a.csv"] = "\239\187\191a,\"b \"\"x\"\"\",\"line\r\nbreak\"\r\n\r\n1,2,3",
      ["b.csv"] = "a,\"b \"\"x\"\"\",\"line\r\nbreak\"\n1,\"2\",\" 3 \"\n\n",
      ["c.tsv"] = "a\t\"b \"\"x\"\"\"\t\"line\r\nbreak\"\n1\t2\t3\n",
    } do
      with_file(name, text, function(path)
        local d = data.open(path)
        assert.same({"a", "b \"x\"", "line\r\nbreak"}, d.columns)
        assert.same({{1, 2}}, d.train.x:totable())
        assert.same({"3"}, d.names)
      end)
    end
    with_file("a.csv", "a;y\n1;2\n", function(path)
      assert.same({{1}}, data.open(path, {separator = ";"}).train.x:totable())
      fails({"has one column, 'a;y'", "separator"}, data.open, path)
      fails("separator is ;;, expected one character", data.open, path, {separator = ";;"})
    end)
  end)

  it("has its label in the column of option label, or of a usual name, or in the last", function()
    with_file("a.csv", "Label,x,z\n1,2,3\n0,4,5\n", function(path)
      assert.equal("Label", data.open(path).label)
      local d = data.open(path, {label = "x"})
      assert.same({{1, 3}, {0, 5}}, d.train.x:totable())
      assert.same({0, 1}, d.train.y:totable())
      assert.same({"2", "4"}, d.names)
      fails({"no column 'lable'", "did you mean 'Label'", "columns are Label, x, z"}, data.open, path,
        {label = "lable"})
    end)
    with_file("a.csv", "x,x,z\n1,2,3\n", function(path) fails("two columns are 'x'", data.open, path) end)
  end)

  it("has classes for whole numbers, in their order, and numbers for regression, unless option task says", function()
    with_file("a.csv", "x,y\n1,10\n2,9\n3,10\n", function(path)
      local d = data.open(path)
      assert.same({"9", "10"}, d.names)
      assert.same({1, 0, 1}, d.train.y:totable())
      d = data.open(path, {task = "regression"})
      assert.is_nil(d.classes)
      assert.same({10, 9, 10}, d.train.y:totable())
      assert.equal("f32", d.train.y:dtype())
    end)
    with_file("a.csv", "x,y\n1,1.5\n2,1\n", function(path)
      assert.same({1.5, 1}, data.open(path).train.y:totable())
      assert.same({1, 0}, data.open(path, {task = "classes"}).train.y:totable())
      fails("task is 'classify', expected classes or regression", data.open, path, {task = "classify"})
    end)
  end)

  it("has one class for equal numbers, however they are written, if all labels are numbers", function()
    local function check(labels, names, ids)
      local rows = {}
      for i, label in ipairs(labels) do rows[i] = ("%d,%s"):format(i, label) end
      with_file("a.csv", "x,y\n" .. table.concat(rows, "\n"), function(path)
        local d = data.open(path)
        assert.same({names, ids, #names}, {d.names, d.train.y:totable(), d.classes}, table.concat(labels, " "))
      end)
    end
    check({"1", "1.0", "2"}, {"1", "2"}, {0, 0, 1})
    check({" 1", "01", "1e0", "+1", "10e-1", "\" 1\"", " \"1\"", "1 ", "0.1E+1", "2"}, {"1", "2"},
      {0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
    check({"-0", "0", "0e7", ".0"}, {"0"}, {0, 0, 0, 0})
    check({"-2.0", "-2", "2"}, {"-2", "2"}, {0, 0, 1})
    check({"100", "1e2", "20"}, {"20", "100"}, {1, 1, 0})
    check({"01", "02", "01"}, {"01", "02"}, {0, 1, 0}) -- written in one way: the name is as in the file
    check({"9007199254740993", "9007199254740992"}, {"9007199254740992", "9007199254740993"}, {1, 0})
    check({"cat", "Cat", "cat "}, {"Cat", "cat"}, {1, 0, 1}) -- texts are compared as they are, without outer spaces
    check({"cat", "1", "1.0"}, {"1", "1.0", "cat"}, {2, 0, 1})
    folders.with({["train.csv"] = "x,y\n1,1\n2,2\n", ["test.csv"] = "x,y\n3,2.0\n4,01\n"}, function(path)
      assert.same({1, 0}, data.open(path).test.y:totable())
      folders.write(path .. "/test.csv", "x,y\n3,3.0\n")
      fails({"test.csv", "class '3.0', which the training set lacks"}, data.open, path)
    end)
    with_file("a.csv", "x,y\n1,0.5\n2,0.50\n", function(path)
      assert.same({"0.5"}, data.open(path, {task = "classes"}).names)
    end)
  end)

  it("has column names without the spaces around them, and quotes after spaces", function()
    with_file("a.csv", "label , x, \"z\"\n1,2,3\n0,4, \"5\"\n", function(path)
      local d = data.open(path)
      assert.same({"label", {"label", "x", "z"}, {1, 0}}, {d.label, d.columns, d.train.y:totable()})
      assert.same({0, 1}, data.open(path, {label = "x"}).train.y:totable())
    end)
  end)

  it("with labels that are missing or no numbers, in a column of numbers, is refused", function()
    for text, said in pairs {["1,0.5\n2,nan\n3,1\n"] = "row 2 has the label 'nan', row 1 the number 0.5",
      ["1,NA\n2,3\n"] = "row 1 has the label 'NA', row 2 the number 3",
      ["1,1.5\n2,-Inf\n"] = "row 2 has the label '-Inf', row 1 the number 1.5",
      ["1,1.5\n2,rose\n"] = "row 2 has the label 'rose', row 1 the number 1.5"} do
      with_file("a.csv", "x,y\n" .. text, function(path)
        fails({said, "task = 'classes'"}, data.open, path)
        assert.equal(2, #data.open(path, {task = "classes"}).names - (text:find "3,1" and 1 or 0))
      end)
    end
    with_file("a.csv", "x,y\n1,a\n2,\n", function(path)
      fails({"row 2 has no label"}, data.open, path)
      fails({"row 2 has no label"}, data.open, path, {task = "classes"})
    end)
    with_file("a.csv", "x,y\n1,3a\n2,3\n3,NA\n", function(path) -- names, some of them digits; NA is none of a number
      fails({"row 3 has the label 'NA', row 2 the number 3"}, data.open, path)
    end)
    with_file("a.csv", "x,y\n1,NA\n2,b\n3,3a\n", function(path)
      assert.same({"3a", "NA", "b"}, data.open(path).names)
    end)
  end)

  it("of very large or small features is standardised", function()
    for _, scale in ipairs {"e0", "e30", "e37", "e-30", "e-38"} do
      local rows = {}
      for i, v in ipairs {1, 2, 4, 8} do rows[i] = ("%g%s,%d\n"):format(v, scale, i % 2) end
      with_file("a.csv", "x,y\n" .. table.concat(rows), function(path)
        local x = data.open(path, {standardise = true}).train.x
        for i, v in ipairs {-1.0256, -0.6527, 0.0932, 1.5851} do assert.is_near(v, x:get(i, 1), 2e-4) end
      end)
    end
  end)

  it("for tests has the classes of the one for training", function()
    folders.with({["train.csv"] = "x,y\n1,b\n2,a\n5,c\n", ["test.csv"] = "x,y\n3,c\n"}, function(path)
      local d = data.open(path, {standardise = true})
      assert.same({2}, d.test.y:totable())
      assert.equal(3, d.test.classes)
      local mean, std = 8 / 3, math.sqrt((1 + 4 + 25) / 3 - 64 / 9)
      for i, v in ipairs {1, 2, 5} do assert.is_true(math.abs(d.train.x:get(i, 1) - (v - mean) / std) < 1e-5) end
      assert.is_true(math.abs(d.test.x:get(1, 1) - (3 - mean) / std) < 1e-5)
      for _, other in ipairs {{only = "test"}, {}} do -- the same with and without the other part
        other.standardise = true
        assert.equal(d.test.x:get(1, 1), data.open(path, other).test.x:get(1, 1))
      end
      folders.write(path .. "/test.csv", "x,y\n3,d\n")
      fails({"test.csv", "class 'd', which the training set lacks"}, data.open, path)
      folders.write(path .. "/train.csv", "x,y\n1,0.5\n2,1\n")
      folders.write(path .. "/test.csv", "x,y\n3,7\n")
      assert.same({7}, data.open(path).test.y:totable()) -- a number, as in the training set, not a class
      folders.write(path .. "/test.csv", "z,y\n3,a\n")
      fails({"columns z, y, the training set x, y"}, data.open, path)
    end)
  end)

  it("of one part is standardised by the samples that are not held out", function()
    with_file("a.csv", "x,y\n1,0\n2,1\n4,0\n8,1\n16,0\n", function(path)
      local d, raw = data.open(path, {test = 0.4, standardise = true}), data.open(path, {test = 0.4})
      local sum, squares = 0, 0
      for _, row in ipairs(d.train.x:totable()) do sum, squares = sum + row[1], squares + row[1] ^ 2 end
      assert.is_true(math.abs(sum) < 1e-5 and math.abs(squares - 3) < 1e-4)
      local mean = raw.train.x:mean():item()
      assert.is_true(math.abs(d.test.x:get(1, 1) * d.std:item() + mean - raw.test.x:get(1, 1)) < 1e-4)
      fails("there is no option test", data.open, path, {seed = 1})
    end)
  end)

  it("may have quotes where the separator is a space or a tab", function()
    for _, separator in ipairs {" ", "\t"} do
      local text = ('a|b|"the label"\n1|"2"|"x y"\n3|4|z\n'):gsub("|", separator)
      with_file("a.csv", text, function(path)
        local d = data.open(path, {separator = separator, label = "the label"})
        assert.same({"x y", "z"}, d.names)
        assert.equal(2, d.train.x:size(2))
      end)
    end
  end)

  it("with a bad line is refused with its number", function()
    for texts, text in pairs {
      [{"line 3 has 1 fields, expected 2 as in the header"}] = "a,y\n1,2\n3\n",
      [{"line 4, column 'a': 'x', expected a finite number"}] = "a,y\n1,2\n\nx,3\n",
      [{"line 2, column 'a': '', expected a finite number"}] = "a,y\n,2\n",
      [{"line 2, column 'a': 'nan'"}] = "a,y\nnan,2\n", [{"line 2, column 'a': '1e99'"}] = "a,y\n1e99,2\n",
      [{"line 2, column 'a': '0x10'"}] = "a,y\n0x10,2\n", [{"'1 2'"}] = "a,y\n1 2,2\n",
      [{"quote that opens on line 2 is not closed"}] = "a,y\n\"1,2\n3,4\n",
      [{"line 2: byte 0x31 after a closing quote"}] = "a,y\n\"1\"1,2\n",
      [{"line 2: byte 0x32 after a carriage return"}] = "a,y\n1\r2,2\n",
      [{"line 2 has a zero byte"}] = "a,y\n1\0,2\n", [{"has 1 lines, expected a header and one row"}] = "a,y\n",
      [{"has 0 lines"}] = "", [{"column 1 has no name", "index=False"}] = ",a,y\n0,1,2\n",
      [{"the first line is 1.5, 0, expected the columns' names"}] = "1.5,0\n2,1\n",
    } do
      with_file("a.csv", text, function(path) fails(texts, data.open, path) end)
    end
    for _, names in ipairs {"0,1", "1,2"} do -- pandas' names of columns that have none
      with_file("a.csv", names .. "\n5,1\n", function(path) assert.equal(1, data.open(path).train.n) end)
    end
    with_file("a.csv", "a,y\n1,b\n", function(path)
      fails({"line 2, column 'y': 'b'"}, data.open, path, {task = "regression"})
    end)
  end)
end)
