--- Topology allgather: every rank's compressed messages to every rank, each decodes all of them in the order of ranks,
-- so the averages are the same bits everywhere. Messages travel in buckets while backward continues, small tensors in
-- dense buckets. A rank receives P - 1 messages a step: the choice for few ranks.
return {program = function() return {"encode", "allgather", "decode"} end}
