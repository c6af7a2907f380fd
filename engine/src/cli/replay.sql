-- Events of a stream that were set aside for a reason that was not theirs, and were not counted since: those that had
-- no event type when they were read, and those on which a meter's expression failed, which once rejected them.
SELECT u.type, u.source, u.event_id, u.content_hash, u.event_time, u.raw
FROM events u
WHERE u.shard = $shard
  AND (
    $unmatched AND u.status = 'unmatched'
    OR $rejected AND u.status = 'rejected' AND u.reason LIKE 'meter `%` failed in the window that starts at %'
  )
  AND NOT EXISTS (
    SELECT 1
    FROM events c
    WHERE c.shard = $shard AND c.status IN ('ok', 'late') AND c.source = u.source AND c.event_id = u.event_id
  )
ORDER BY u.sequence, u.ordinal
