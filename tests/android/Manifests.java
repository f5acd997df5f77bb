import edgevit.android.EdgevitException;
import edgevit.android.EdgevitSession;
import java.io.File;
import java.io.PrintStream;
import java.util.Arrays;

/** Manifests FOLDER: opens each folder in FOLDER. A line each: its name, status, message. */
final class Manifests {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        File[] folders = new File(arguments[0]).listFiles();
        Arrays.sort(folders);
        for (File folder : folders) {
            String found;
            try (EdgevitSession session = new EdgevitSession(folder)) {
                found = "opened\t" + session.getLabels().size();
            } catch (EdgevitException failure) {
                found = failure.getStatus() + "\t" + failure.getMessage();
            }
            out.println(folder.getName() + "\t" + found.replace('\n', ' '));
        }
    }
}
