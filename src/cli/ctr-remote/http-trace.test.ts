import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { fromPassword, parseReference, RegistryClient } from '../../registry/index.ts'
import { dumpHttp, traceHttp } from './http-trace.ts'

test('heads of requests and answers are shown, and connections; nothing that somebody could log in with', async (t) => {
  const server = createServer((request, response) => {
    if (request.headers.authorization === undefined)
      response.writeHead(401, { 'www-authenticate': 'Basic realm="secret-realm"' }).end()
    else if (request.url?.includes('manifests') === true)
      response.writeHead(307, { location: `http://${request.headers.host}/stored?signature=secret-signed` }).end()
    else response.writeHead(404, { 'set-cookie': 'secret-cookie' }).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const lines: string[] = []
  dumpHttp((line) => lines.push(line))
  traceHttp((line) => lines.push(line))
  const client = new RegistryClient({
    credentials: fromPassword('user', 'secret-password'),
    plainHttp: 'always',
    headers: { 'X-Api-Key': 'secret-key', 'X-Plain': 'plain' },
  })
  try {
    await assert.rejects(client.repository(parseReference(`${host}/app:1`)).manifest('1'))
  } finally {
    await client.close()
  }
  const text = lines.join('\n')
  assert.ok(lines.includes(`> GET http://${host}/v2/app/manifests/1`), text)
  assert.ok(lines.includes(`< 401 http://${host}/v2/app/manifests/1`), text)
  assert.ok(lines.includes(`> GET http://${host}/stored?…`), text)
  assert.match(text, /^> x-plain: plain$/im)
  assert.match(text, /^> authorization: \(not shown\)$/im)
  assert.match(text, /^connected to 127\.0\.0\.1:?\d* at 127\.0\.0\.1:\d+$/m)
  assert.doesNotMatch(text, /secret-/)
  assert.equal(text.includes(Buffer.from('user:secret-password').toString('base64')), false)
})
