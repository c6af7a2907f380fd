SELECT customer,
       CAST(CAST(SUM(discount) AS DECIMAL(38, 4)) AS VARCHAR) AS discount,
       CAST(CAST(SUM(tax) AS DECIMAL(38, 4)) AS VARCHAR) AS tax,
       CAST(CAST(SUM(total) AS DECIMAL(38, 4)) AS VARCHAR) AS total,
       CAST(CAST(SUM(credits_applied) AS DECIMAL(38, 4)) AS VARCHAR) AS prepaid,
       CAST(CAST(SUM(amount_due) AS DECIMAL(38, 4)) AS VARCHAR) AS amount_due
FROM invoices
GROUP BY customer
ORDER BY customer
