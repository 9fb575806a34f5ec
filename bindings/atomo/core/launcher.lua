--- Facts that the launcher (mpirun, srun) passes to this process in environment variables, before MPI starts.
local M = {}

--- Returns this process's rank; 0 without a launcher.
---@return integer
function M.rank()
  return tonumber(os.getenv "OMPI_COMM_WORLD_RANK" or os.getenv "PMIX_RANK" or os.getenv "PMI_RANK") or 0
end

return M
