SELECT status, COUNT(*) AS events, COALESCE(reason, '') AS reason
FROM events
WHERE status <> 'ok'
GROUP BY status, COALESCE(reason, '')
ORDER BY status, events DESC, reason
