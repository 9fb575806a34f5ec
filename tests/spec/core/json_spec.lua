-- The JSON decoder: strict, and linear in the text's length.
local json = require "atomo.core.json"
local spawn = require "support.spawn"

describe("json.decode", function()
  it("takes what RFC 8259 has", function()
    for _, case in ipairs {
      {"0", 0}, {"-0.0e0", 0}, {"1E+2", 100}, {"1e-400", 0},
      {'"\\u00e4\\n"', "\195\164\n"},
      {[["\ud83d\ude00"]], "\240\159\152\128"}, {'"\240\159\152\128"', "\240\159\152\128"}, {'"\\u0000"', "\0"},
      {" \t\r\ntrue ", true}, {"[[],{}]", {{}, {}}}, {'{"a":null,"b":[null]}', {b = {json.null}}},
    } do
      assert.same(case[2], json.decode(case[1]))
    end
    assert.equal(json.null, json.decode('{"a":null}', {nulls = true}).a)
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_false(json.is_array(json.decode "{}"))
  end)

  local wrong = {
    {"", "offset 0: found the end"}, {"nul", "a value"}, {"01", "the end of a number"}, {"1.", "the end of a number"},
    {".5", "a value"}, {"+1", "a value"}, {"-", "a value"}, {"1e", "the end of a number"}, {"0x10", "end of a number"},
    {"NaN", "a value"}, {"1e999", "a number that a double holds"}, {"-1e999", "a number that a double holds"},
    {"[1,]", "a value"}, {"[1 2]", "',' or '%]'"}, {"{,}", "a key"}, {'{"a"}', "':'"}, {'{"a":1,}', "a key"},
    {"{1:2}", "a key"}, {'{"a":1,"a":2}', "no key twice"}, {[[{"a":1,"\u0061":2}]], "no key twice"},
    {'"a', "the end of the text"}, {'"\n"', "no control"}, {[["\x"]], "an escape"}, {[["\u12g4"]], "an escape"},
    {[["\ud800"]], "surrogate"}, {[["\udc00"]], "surrogate"}, {[["\ud800\u0041"]], "surrogate"},
    {'"\255"', "offset 1: .*UTF%-8"}, {'"a\192\128"', "offset 2: .*UTF%-8"}, {'"\237\160\128"', "UTF%-8"},
    {'"\244\144\128\128"', "UTF%-8"}, {'"\226\130"', "UTF%-8"}, {'{"\128":1}', "UTF%-8"}, {"1 2", "the end"},
    {("["):rep(100000), "no deeper nesting"}, {('{"a":'):rep(100000), "no deeper nesting"},
  }
  for _, case in ipairs(wrong) do
    it("refuses " .. ("%q"):format(case[1]:sub(1, 20)), function()
      assert.error_matches(function() json.decode(case[1]) end, case[2])
    end)
  end

  it("refuses points and exponents where integers are asked for", function()
    assert.same({1, -2}, json.decode("[1,-2]", {integers = true}))
    for _, text in ipairs {"1.0", "1e0", "[1E2]"} do
      assert.error_matches(function() json.decode(text, {integers = true}) end, "an integer")
    end
  end)

  it("takes linear time", function()
    local n = 300000
    local start = os.clock()
    for _, text in ipairs {
      (" "):rep(n) .. "1" .. (" "):rep(n) .. "x", '"' .. ("a"):rep(n), '"' .. ("\\n"):rep(n) .. '"', ("1"):rep(n),
      "[" .. ("1,"):rep(n) .. "1]", "[" .. ("1 , "):rep(n), '"' .. ("\195\164"):rep(n) .. '"', "-" .. ("0"):rep(n),
    } do
      pcall(json.decode, text)
    end
    assert.is_true(spawn.in_time(os.clock() - start, 10)) -- quadratic: minutes
  end)
end)
