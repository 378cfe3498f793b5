// Does what its one argument says: makes VAPID keys, or sends messages and tells the status of each.
import { createRequire } from "node:module";
import path from "node:path";

// The modules are where it was started, not beside this file.
const webpush = createRequire(path.join(process.cwd(), "x.js"))("web-push");
const order = JSON.parse(process.argv[2]);

if (order.make) {
  console.log(JSON.stringify(webpush.generateVAPIDKeys()));
} else {
  const { publicKey, privateKey } = order.keys;
  webpush.setVapidDetails("mailto:tests@hongyan.example", publicKey, privateKey);
  const statuses = [];
  for (const { text, options } of order.send) {
    try {
      const answer = await webpush.sendNotification(order.subscription, text || null, options);
      statuses.push(answer.statusCode);
    } catch (error) {
      if (!error.statusCode) throw error;
      statuses.push(error.statusCode);
    }
  }
  console.log(JSON.stringify(statuses));
}
