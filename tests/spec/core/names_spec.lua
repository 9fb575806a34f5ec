-- The public names: scripts outside this project rely on them.
local atomo = require "atomo"

local function all(names, holder, what)
  for name in names:gmatch "%S+" do
    assert.is_truthy(holder[name], ("%s%s is missing"):format(what, name))
  end
end

describe("public names", function()
  it("of tensors", function()
    all("tensor zeros ones full arange linspace eye randn rand randperm manual_seed from_npy from_npz svd eigh qr " ..
      "rfft irfft cat stack where einsum", atomo, "atomo.")
    all("shape size dim numel view reshape transpose narrow select contiguous clone copy_ fill_ zero_ get set " ..
      "item totable data add_ mul_ axpy_ matmul sum mean max min argmax norm dot exp log sqrt abs clamp save_npy " ..
      "backward gather where sort argsort topk split chunk std var",
      atomo.zeros(1), "t:")
  end)

  it("of autograd, layers and models", function()
    all("param no_grad gradcheck func nn F", atomo, "atomo.")
    all("Linear Conv2d BatchNorm2d ReLU MaxPool2d AvgPool2d GlobalAvgPool Flatten Dropout Dropout2d Sequential " ..
      "Module", atomo.nn,
      "nn.")
    all("extend parameters train eval state_dict load_state_dict", atomo.nn.Module, "nn.Module:")
    all("cross_entropy relu softmax", atomo.F, "F.")
    for file, name in pairs {resnet = "resnet18 resnet20", vgg = "vgg11", lenet = "lenet", mlp = "mlp"} do
      all(name, require("models." .. file), "models." .. file .. ".")
    end
  end)

  it("of MPI", function()
    all("size hostname", atomo.mpi.world, "world.")
    assert.equal("number", type(atomo.mpi.world.rank))
    all("barrier bcast allreduce reduce gather allgather allgatherv alltoallv send recv isend irecv iallreduce " ..
      "split split_shared", atomo.mpi.world, "world:")
  end)

  it("of compression and training", function()
    all("probabilities compressor compressors basis decomposition verify exchange train", atomo, "atomo.")
    all("encode encode_all decode decode_add stats", atomo.compressor "none", "c:")
    all("sgd adam adamw lars", atomo.optim, "atomo.optim.")
    all("constant cosine step multistep warmup", atomo.schedule, "atomo.schedule.")
    all("push finish", atomo.exchange {}, "exchange:")
  end)
end)
