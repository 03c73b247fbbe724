import java.io.InputStream;
import java.net.URL;

/** A connector on HttpURLConnection: prints what the tool answers. */
public class URLConnectionGet {
  public static void main(String[] args) throws Exception {
    try (InputStream body = new URL(args[0]).openStream()) {
      System.out.write(body.readAllBytes());
      System.out.flush();
    }
  }
}
