// A connector on Node's fetch: prints what the tool answers. Node 20's fetch
// knows no proxy, so this reaches pillion only by a base URL of its own.
const response = await fetch(process.argv[2]);
if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
process.stdout.write(await response.text());
