// A connector on Node's http that sends http://tool.example/... to its proxy,
// as every HTTP library with a proxy option does: no certificate is involved.
import http from "node:http";

const proxy = new URL(process.env.HTTP_PROXY);
const url = new URL(process.argv[2]);
http.get({ host: proxy.hostname, port: proxy.port, path: url.href, headers: { host: url.host } }, (response) => {
  if (response.statusCode !== 200) process.exitCode = 1;
  response.pipe(process.stdout);
});
