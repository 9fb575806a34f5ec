--- Annotations of tensor methods that loops make at run time (elementwise functions, arithmetic, comparisons,
-- reductions and their in-place forms), for editors, help() and the reference. Nothing loads this file.
---@meta
-- luacheck: ignore 212 241

local Tensor = {}

--- Returns the magnitude of every element.
---@return atomo.Tensor
---@usage t:neg():abs():get(1, 1) --> 1
function Tensor:abs() end

--- Replaces every element by its magnitude.
---@return atomo.Tensor self
---@usage t:neg():abs_():get(1, 1) --> 1
function Tensor:abs_() end

--- Returns t + b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:add(1):get(1, 1) --> 2
function Tensor:add(b) end

--- Adds b, in place; b is broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():add_(1):get(1, 1) --> 2
function Tensor:add_(b) end

--- Returns the maximum, without positions; elements equal to it share its gradient.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage t:amax(1):get(1) --> 3
function Tensor:amax(dim, keepdim) end

--- Returns the minimum, without positions; elements equal to it share its gradient.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage t:amin(1):get(2) --> 2
function Tensor:amin(dim, keepdim) end

--- Returns the 1-based position of the maximum.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor f32
---@usage t:flatten():argmax(1):item() --> 4
function Tensor:argmax(dim, keepdim) end

--- Returns the 1-based position of the minimum.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor f32
---@usage t:flatten():argmin(1):item() --> 1
function Tensor:argmin(dim, keepdim) end

--- Returns every element rounded up. Its gradient is 0.
---@return atomo.Tensor
---@usage atomo.tensor({1.5}):ceil():item() --> 2
function Tensor:ceil() end

--- Returns the elements clipped to lo and hi. The gradient of a clipped element is 0.
---@param lo number? default: no limit
---@param hi number? default: no limit
---@return atomo.Tensor
---@usage t:clamp(2, 3):get(1, 1) --> 2
function Tensor:clamp(lo, hi) end

--- Returns a contiguous copy, which has a gradient.
---@return atomo.Tensor
---@usage t:clone():get(2, 2) --> 4
function Tensor:clone() end

--- Returns the cosine of every element, in radians.
---@return atomo.Tensor
---@usage atomo.zeros(1):cos():item() --> 1
function Tensor:cos() end

--- Returns t / b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:div(2):get(2, 2) --> 2
function Tensor:div(b) end

--- Divides by b, in place; b is broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():div_(2):get(2, 2) --> 2
function Tensor:div_(b) end

--- Returns the inner product, a scalar tensor.
---@param u atomo.Tensor of as many elements
---@return atomo.Tensor
---@usage t:dot(t):item() --> 30
function Tensor:dot(u) end

--- Returns 1 where t = b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:eq(1):sum():item() --> 1
function Tensor:eq(b) end

--- Returns e to the power of every element.
---@return atomo.Tensor
---@usage atomo.zeros(1):exp():item() --> 1
function Tensor:exp() end

--- Replaces every element by its exponential.
---@return atomo.Tensor self
---@usage atomo.zeros(1):exp_():item() --> 1
function Tensor:exp_() end

--- Returns a view repeated along dimensions of size 1, as in broadcasting.
---@param ... integer|integer[] sizes
---@return atomo.Tensor
---@usage atomo.ones(1, 3):expand(2, 3):size(1) --> 2
function Tensor:expand(...) end

--- Returns every element rounded down. Its gradient is 0.
---@return atomo.Tensor
---@usage atomo.tensor({1.5}):floor():item() --> 1
function Tensor:floor() end

--- Returns 1 where t >= b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:ge(2):sum():item() --> 3
function Tensor:ge(b) end

--- Returns 1 where t > b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:gt(2):sum():item() --> 2
function Tensor:gt(b) end

--- Returns 1 where an element is neither NaN nor infinite, else 0.
---@return atomo.Tensor f32
---@usage t:isfinite():sum():item() --> 4
function Tensor:isfinite() end

--- Returns 1 where an element is Inf or -Inf, else 0.
---@return atomo.Tensor f32
---@usage t:isinf():sum():item() --> 0
function Tensor:isinf() end

--- Returns 1 where an element is NaN, else 0.
---@return atomo.Tensor f32
---@usage t:isnan():sum():item() --> 0
function Tensor:isnan() end

--- Returns 1 where t <= b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:le(2):sum():item() --> 2
function Tensor:le(b) end

--- Returns the natural logarithm of every element.
---@return atomo.Tensor
---@usage atomo.ones(1):log():item() --> 0
function Tensor:log() end

--- Replaces every element by its natural logarithm.
---@return atomo.Tensor self
---@usage atomo.ones(1):log_():item() --> 0
function Tensor:log_() end

--- Returns 1 where neither t nor b is 0, else 0. Shapes broadcast; any dtypes.
---@param b atomo.Tensor
---@return atomo.Tensor f32
---@usage t:gt(1):logical_and(t:lt(4)):sum():item() --> 2
function Tensor:logical_and(b) end

--- Returns 1 where t or b is not 0, else 0. Shapes broadcast; any dtypes.
---@param b atomo.Tensor
---@return atomo.Tensor f32
---@usage t:lt(2):logical_or(t:gt(3)):sum():item() --> 2
function Tensor:logical_or(b) end

--- Returns 1 where exactly one of t and b is 0, else 0. Shapes broadcast; any dtypes.
---@param b atomo.Tensor
---@return atomo.Tensor f32
---@usage t:gt(1):logical_xor(t:lt(4)):sum():item() --> 2
function Tensor:logical_xor(b) end

--- Returns 1 where t < b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:lt(2):sum():item() --> 1
function Tensor:lt(b) end

--- Returns the maximum; with dim also its 1-based positions (i32).
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor values
---@return atomo.Tensor? positions
---@usage t:max():item() --> 4
function Tensor:max(dim, keepdim) end

--- Returns the larger of t and b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:maximum(3):get(1, 1) --> 3
function Tensor:maximum(b) end

--- Replaces every element by the larger of it and b.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():maximum_(3):get(1, 1) --> 3
function Tensor:maximum_(b) end

--- Returns the mean.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage t:mean():item() --> 2.5
function Tensor:mean(dim, keepdim) end

--- Returns the minimum; with dim also its 1-based positions (i32).
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor values
---@return atomo.Tensor? positions
---@usage t:min():item() --> 1
function Tensor:min(dim, keepdim) end

--- Returns the smaller of t and b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:minimum(3):get(2, 2) --> 3
function Tensor:minimum(b) end

--- Replaces every element by the smaller of it and b.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():minimum_(3):get(2, 2) --> 3
function Tensor:minimum_(b) end

--- Returns t * b, element by element. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:mul(2):get(2, 2) --> 8
function Tensor:mul(b) end

--- Multiplies by b, in place; b is broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():mul_(2):get(2, 2) --> 8
function Tensor:mul_(b) end

--- Returns 1 where t differs from b, else 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor f32
---@usage t:ne(1):sum():item() --> 3
function Tensor:ne(b) end

--- Returns -t.
---@return atomo.Tensor
---@usage t:neg():get(1, 1) --> -1
function Tensor:neg() end

--- Changes the sign of every element.
---@return atomo.Tensor self
---@usage t:clone():neg_():get(1, 1) --> -1
function Tensor:neg_() end

--- Returns t to the power b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:pow(2):get(2, 2) --> 16
function Tensor:pow(b) end

--- Raises every element to the power b, in place.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():pow_(2):get(2, 2) --> 16
function Tensor:pow_(b) end

--- Returns 1 / t.
---@return atomo.Tensor
---@usage t:reciprocal():get(1, 2) --> 0.5
function Tensor:reciprocal() end

--- Returns max(t, 0).
---@return atomo.Tensor
---@usage t:neg():relu():sum():item() --> 0
function Tensor:relu() end

--- Replaces negative elements by 0.
---@return atomo.Tensor self
---@usage t:neg():relu_():sum():item() --> 0
function Tensor:relu_() end

--- Returns t % b = t - b floor(t / b), which has b's sign, as Lua's. Shapes broadcast. f32 or i32; raises if an i32 b
--- is 0.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:remainder(3):get(2, 2) --> 1
function Tensor:remainder(b) end

--- Returns every element rounded to the nearest whole number, halves to the even one. Its gradient is 0.
---@return atomo.Tensor
---@usage atomo.tensor({2.5}):round():item() --> 2
function Tensor:round() end

--- Returns 1 / (1 + e^-t).
---@return atomo.Tensor
---@usage atomo.zeros(1):sigmoid():item() --> 0.5
function Tensor:sigmoid() end

--- Replaces every element by 1 / (1 + e^-t).
---@return atomo.Tensor self
---@usage atomo.zeros(1):sigmoid_():item() --> 0.5
function Tensor:sigmoid_() end

--- Returns -1, 0 or 1 for every element. Its gradient is 0.
---@return atomo.Tensor
---@usage t:neg():sign():get(1, 1) --> -1
function Tensor:sign() end

--- Returns the sine of every element, in radians.
---@return atomo.Tensor
---@usage atomo.zeros(1):sin():item() --> 0
function Tensor:sin() end

--- Returns the square root of every element; of a negative one NaN.
---@return atomo.Tensor
---@usage t:sqrt():get(2, 2) --> 2
function Tensor:sqrt() end

--- Replaces every element by its square root.
---@return atomo.Tensor self
---@usage t:clone():sqrt_():get(2, 2) --> 2
function Tensor:sqrt_() end

--- Returns the square of every element.
---@return atomo.Tensor
---@usage t:square():get(2, 2) --> 16
function Tensor:square() end

--- Returns t - b. Shapes broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor
---@usage t:sub(1):get(1, 1) --> 0
function Tensor:sub(b) end

--- Subtracts b, in place; b is broadcast.
---@param b atomo.Tensor|number
---@return atomo.Tensor self
---@usage t:clone():sub_(1):get(1, 1) --> 0
function Tensor:sub_(b) end

--- Returns the sum.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage t:sum(1):get(1) --> 4
function Tensor:sum(dim, keepdim) end

--- Returns the hyperbolic tangent of every element.
---@return atomo.Tensor
---@usage atomo.zeros(1):tanh():item() --> 0
function Tensor:tanh() end

--- Replaces every element by its hyperbolic tangent.
---@return atomo.Tensor self
---@usage atomo.zeros(1):tanh_():item() --> 0
function Tensor:tanh_() end

--- Returns the lower triangle of a matrix, or of each matrix of a batch [...,m,n]; the other elements are 0.
---@param diagonal integer? the last diagonal to keep: 0 (default) the main one, 1 the one right of it, -1 left of it
---@return atomo.Tensor
---@usage t:tril():get(1, 2) --> 0
function Tensor:tril(diagonal) end

--- Returns the upper triangle of a matrix, or of each matrix of a batch [...,m,n]; the other elements are 0.
---@param diagonal integer? the first diagonal to keep: 0 (default) the main one, 1 the one right of it, -1 left of it
---@return atomo.Tensor
---@usage t:triu():get(2, 1) --> 0
function Tensor:triu(diagonal) end

--- Returns every element rounded towards 0. Its gradient is 0.
---@return atomo.Tensor
---@usage atomo.tensor({-1.5}):trunc():item() --> -1
function Tensor:trunc() end
