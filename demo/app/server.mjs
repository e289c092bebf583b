// The demo's workload: loads several dependencies from the image and answers one HTTP request with what they made.
import { createServer } from 'node:http'
import { Command } from 'commander'
import { array, assert, integer, property } from 'fast-check'
import pLimit from 'p-limit'
import { parse as parseToml } from 'smol-toml'
import { Agent } from 'undici'
import * as v from 'valibot'
import { release } from './release.mjs'

const Greeting = v.object({ title: v.string(), port: v.number() })
const settings = v.parse(Greeting, parseToml('title = "Hello from a lazy image"\nport = 0\n'))
const program = new Command('server').version(release)
const limit = pLimit(2)

async function greet() {
  const numbers = await Promise.all([1, 2, 3].map((n) => limit(async () => n * n)))
  assert(property(array(integer()), (list) => list.toReversed().toReversed().join() === list.join()))
  return { ...settings, release, program: program.name(), numbers, agent: new Agent().constructor.name }
}

const server = createServer((_request, response) => {
  response.setHeader('content-type', 'application/json')
  void greet().then((greeting) => response.end(JSON.stringify(greeting)))
})
server.listen(settings.port, '127.0.0.1', () => process.stdout.write(`listening on ${server.address().port}\n`))
