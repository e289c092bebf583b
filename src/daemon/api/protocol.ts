/** What upstream's server says before a request reaches the API, in a form of its own that is no valid JSON. */
export function rawRefusal(status: number, text: string): string {
  const body = `{ "error": "${text}" }`
  return `HTTP/1.1 ${status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

/** Its words by what our parser finds wrong; all else is an invalid request. */
const WORDS: Readonly<Record<string, string>> = {
  HPE_INVALID_METHOD: 'Invalid HTTP Method: Unsupported HTTP method',
  HPE_INVALID_VERSION: 'Invalid HTTP Version: Unsupported HTTP version',
  HPE_INVALID_HEADER_TOKEN: 'Invalid header. Reason: Header is incorrectly formatted',
  HPE_INVALID_CONTENT_LENGTH: 'Invalid header. Reason: Invalid value. Key:Content-Length',
  HPE_UNEXPECTED_CONTENT_LENGTH: 'Invalid header. Reason: Invalid value. Key:Content-Length',
  HPE_HEADER_OVERFLOW: 'Invalid header. Reason: Invalid content length',
}

function dropped(words: string): string {
  return rawRefusal(400, `${words}.\nAll previous unanswered requests will be dropped.`)
}

export const UNSUPPORTED_VERSION = dropped('Invalid HTTP Version: Unsupported HTTP version')

/** The answer to bytes that are no request. */
export function protocolFault(error: NodeJS.ErrnoException): string {
  return dropped(WORDS[error.code ?? ''] ?? 'Invalid request')
}
