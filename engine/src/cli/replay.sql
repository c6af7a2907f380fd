-- Events of a stream that had no event type when they were read, and were not counted since.
SELECT u.type, u.source, u.event_id, u.content_hash, u.event_time, u.raw
FROM events u
WHERE u.shard = $shard
  AND u.status = 'unmatched'
  AND NOT EXISTS (
    SELECT 1
    FROM events c
    WHERE c.shard = $shard AND c.status IN ('ok', 'late') AND c.source = u.source AND c.event_id = u.event_id
  )
ORDER BY u.sequence, u.ordinal
