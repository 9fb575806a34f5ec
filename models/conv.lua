--- The convolutions of these networks: nn.Conv2d with the initial values of He et al. 2015 for ReLU, as in
-- torchvision's ResNets and VGGs: normal with variance 2 / fan_out, bias zero. (nn.Conv2d alone has the initial values
-- of PyTorch.)
local nn = require("atomo").nn

local function he(weight, bias)
  nn.init.kaiming_normal_(weight, {mode = "fan_out", nonlinearity = "relu"})
  if bias then nn.init.zeros_(bias) end
end

--- conv(in, out, kernel, opts): arguments of nn.Conv2d.
return function(in_channels, out_channels, kernel, opts)
  local o = {init = he}
  for name, value in pairs(opts or {}) do o[name] = value end
  return nn.Conv2d(in_channels, out_channels, kernel, o)
end
