// Publishes with OpenMeter's client for Node, asks for usage, and prints what it was told. The door is the first argument.
import { setTimeout as later } from 'node:timers/promises'
import { OpenMeter } from '@openmeter/sdk'

const client = new OpenMeter({ baseUrl: process.argv[2], apiKey: 'none' })

const event = (id, subject, model, minute, tokens) => ({
  id, source: 'sdk', type: 'llm.completion', subject,
  time: new Date(Date.UTC(2026, 9, 1, 10, minute)),
  data: { model, region: 'eu', input_tokens: tokens, output_tokens: 1 },
})

await client.events.ingest(event('o1', 'a', 'm', 0, 1))
await client.events.ingest([event('o2', 'a', 'n', 1, 20), event('o3', 'b', 'm', 59, 300)])
await client.events.ingest([event('o3', 'b', 'm', 59, 300), event('o4', 'b', 'm', 59, 4000)])

const from = new Date(Date.UTC(2026, 9, 1))
const to = new Date(Date.UTC(2026, 9, 2))
const row = ({ value, windowStart, subject, groupBy }) => [value, windowStart.toISOString(), subject, groupBy]
const rows = async (asked) => (await client.meters.query('tokens_input', { from, to, ...asked })).data.map(row)

for (let tries = 0; tries < 600; tries += 1) {
  const [all] = await rows()
  if (all?.[0] === 4321) break
  await later(50)
}

const refused = await rows({ groupBy: ['color'] }).then(() => null, (error) => error.message)
console.log(JSON.stringify({
  slugs: (await client.meters.list()).map((meter) => meter.slug),
  aggregation: (await client.meters.get('tokens_calls')).aggregation,
  all: await rows(),
  by_subject: await rows({ groupBy: ['subject'] }),
  day: await rows({ windowSize: 'DAY', subject: ['b'] }),
  filtered: await rows({ filterGroupBy: { model: 'n' }, groupBy: ['model'] }),
  refused,
}))
