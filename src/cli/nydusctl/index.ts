/** `nydusctl`: asks and configures a running nydusd, with the original's command line. */
import { main } from './main.ts'

void main(process.argv.slice(2))
