--- Topology allgather: every rank sends its messages to all others. Each decodes all of them in the order of ranks, so
-- averages are bit-identical. Buckets of messages are sent while backward continues, small tensors in dense buckets. A
-- rank receives P - 1 messages per step, so it suits few ranks.
return {program = function() return {"encode", "allgather", "decode"} end}
