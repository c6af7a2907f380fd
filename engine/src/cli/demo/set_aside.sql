-- Reasons that differ only in their numbers are shown together, by one of them.
SELECT status, COUNT(*) AS events, MIN(COALESCE(reason, 'its window had closed; it counts in a later pane')) AS reason
FROM events
WHERE status <> 'ok'
GROUP BY status, translate(COALESCE(reason, ''), '0123456789.', '')
ORDER BY status, events DESC, reason
