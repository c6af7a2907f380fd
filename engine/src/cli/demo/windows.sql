SELECT 'tokens' AS meter, COUNT(DISTINCT window_start) AS windows, COUNT(*) AS groups,
       SUM(CASE WHEN is_final THEN 0 ELSE 1 END) AS still_open
FROM tokens
UNION ALL
SELECT 'tasks', COUNT(DISTINCT window_start), COUNT(*), SUM(CASE WHEN is_final THEN 0 ELSE 1 END) FROM tasks
UNION ALL
SELECT 'gpu', COUNT(DISTINCT window_start), COUNT(*), SUM(CASE WHEN is_final THEN 0 ELSE 1 END) FROM gpu
ORDER BY meter
