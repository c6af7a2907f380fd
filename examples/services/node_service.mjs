// A service that answers with a language model and meters it: Node alone, no packages.
//
// Usage waits in memory for at most a second or a hundred events, and is sent until Tollgate has answered 204; an event keeps its id, so none counts
// twice. What waits is lost if this process is killed: where that must not be, keep it in a file or a table first, as fastapi_service.py does.
//
//     TOLLGATE=http://127.0.0.1:8080 PORT=9000 node examples/services/node_service.mjs
//     curl -d '{"customer": "acme", "prompt": "how much is it?"}' http://127.0.0.1:9000/complete
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { setTimeout as later } from 'node:timers/promises'

const tollgate = process.env.TOLLGATE ?? 'http://127.0.0.1:8080'
const key = process.env.TOLLGATE_KEY
const headers = { 'Content-Type': 'application/x-ndjson', ...(key && { Authorization: `Bearer ${key}` }) }
const waiting = []
let stopping = false

// Sends one batch until it is acknowledged.
async function send(events) {
  for (let wait = 1000; ; wait = Math.min(2 * wait, 30_000)) {
    try {
      const body = events.map((event) => JSON.stringify(event)).join('\n')
      const answer = await fetch(`${tollgate}/api/v1/events`, { method: 'POST', headers, body, signal: AbortSignal.timeout(10_000) })
      if (answer.status === 204) return
      const said = await answer.text()
      if (answer.status === 400) {
        // No retry mends it: it names each event that is none.
        console.error('refused', said)
        return
      }
      console.error(`not acknowledged, sent again in ${wait} ms:`, answer.status, said)
    } catch (error) {
      console.error(`not acknowledged, sent again in ${wait} ms:`, error.message)
    }
    await later(wait)
  }
}

async function sendAll() {
  while (!stopping || waiting.length > 0) {
    if (waiting.length > 0) await send(waiting.splice(0, 100))
    if (waiting.length < 100 && !stopping) await later(1000)
  }
}

// Stands for a language model: an answer, and what the provider says that it used.
function model(prompt) {
  const answer = `You asked: ${prompt}`
  return [answer, { model: 'm-large', input_tokens: prompt.split(' ').length, output_tokens: answer.split(' ').length }]
}

const server = createServer(async (request, response) => {
  try {
    let text = ''
    for await (const part of request) text += part
    const { customer, prompt } = JSON.parse(text)
    const [answer, used] = model(prompt)
    waiting.push({
      specversion: '1.0', id: randomUUID(), source: 'node-service', type: 'llm.completion', subject: customer,
      time: new Date().toISOString(), data: used,
    })
    response.end(JSON.stringify({ answer }))
  } catch (error) {
    response.statusCode = 400
    response.end(JSON.stringify({ error: error.message }))
  }
})

server.listen(Number(process.env.PORT ?? 9000), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`)
})
const sending = sendAll()
process.on('SIGTERM', async () => {
  stopping = true
  server.close()
  await sending
  process.exit(0)
})
